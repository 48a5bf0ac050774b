"""The policy node: cameras and an instruction in, action chunks out.

Callbacks only store the newest message. A thread of its own runs the policy. A watchdog on a steady
clock judges 50 times a second whether the robot may move, and is the only one to say so.

The safe rule: no instruction, no motion; any doubt, a chunk without steps and the reason. Trouble
with inputs passes by itself; trouble with the engine ends only by ``~/reset`` or re-activation.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

from rclpy.clock import Clock, ClockType, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from lightvla_ros.errors import InstructionError, PolicyOutputError, one_line, quoted
from lightvla_ros.msg import VlaStatus
from lightvla_ros.nodes.clock_watch import ClockWatch
from lightvla_ros.nodes.conversions import InputError
from lightvla_ros.nodes.lifecycle import GuardedLifecycleNode, TransitionError
from lightvla_ros.nodes.policy_inputs import InputTopics, Result, run_job
from lightvla_ros.nodes.policy_loading import load_policy
from lightvla_ros.nodes.policy_outputs import ChunkOutput
from lightvla_ros.nodes.policy_parameters import (
    POLICY_PARAMETERS,
    limits_from,
    misfit,
    nanoseconds,
)
from lightvla_ros.nodes.policy_status import StageHistory, StatusReport
from lightvla_ros.nodes.qos_overrides import unused_override
from lightvla_ros.nodes.spin import run_node
from lightvla_ros.policy.actions import limit_chunk
from lightvla_ros.policy.policy import Policy
from lightvla_ros.policy.prompt import check_instruction, stop_words_in
from lightvla_ros.runtime.inbox import Inbox, Job, NotReadyError, seconds
from lightvla_ros.runtime.reasons import kind, reason
from lightvla_ros.runtime.worker import Worker

WATCHDOG_PERIOD = 0.02
LONGEST_PAUSE = 2.0  # between tries with an engine that fails [s]


class PolicyNode(GuardedLifecycleNode):
    """Lifecycle node around one policy.

    :param stop: Set when the process is to end, by a signal or by the shutdown transition.
    :param load: Builds the policy from folder, engine and options; tests put theirs here.
    """

    def __init__(
        self,
        stop: threading.Event | None = None,
        load: Callable[..., Policy] = Policy.load,
        **options,
    ) -> None:
        super().__init__('lightvla', stop or threading.Event(), **options)
        self.history = StageHistory()
        self.counts = dict.fromkeys(('sent', 'clamped', 'discarded', 'failed', 'overruns'), 0)
        self._load = load
        self._policy: Policy | None = None
        self._values = POLICY_PARAMETERS.declare(self, self._on_parameters, self._misfit)
        self._inbox: Inbox | None = None
        self._output: ChunkOutput | None = None
        self._worker: Worker[Job, Result] | None = None
        self._inputs: InputTopics | None = None
        self._active = False
        self._paused = False
        self._pending_instruction = ''
        self._instruction_changed_at = -math.inf
        self._instruction_served_at = -math.inf  # given, repeated, or answered by a chunk
        self._uninstructed = reason('no_instruction')  # why there is none
        self._failures = 0
        self._trouble = ''  # why the last chunk was a hold, until the next one with steps
        self._fault = ''
        self._report = StatusReport(self, self._advice, self._on_publish_failure)
        self.create_service(Trigger, '~/reset', self._on_reset)
        self.create_service(SetBool, '~/pause', self._on_pause)
        # Steady clocks: timers on ROS time stop when /clock stops, and that is when a watchdog is
        # needed. They also end rclpy's habit of sleeping through SIGTERM without any timer.
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(WATCHDOG_PERIOD, self._watch, clock=self._steady)
        self.create_timer(1.0, self._heartbeat, clock=self._steady)
        self._clock_watch = ClockWatch(self.get_clock())
        # The handle must be kept: rclpy calls it even when it has been collected.
        self._jump_handle = self.get_clock().create_jump_callback(
            JumpThreshold(
                min_forward=Duration(seconds=1),
                min_backward=Duration(nanoseconds=-1),
                on_clock_change=True,
            ),
            post_callback=self._on_clock_jump,
        )
        self._report.publish()

    @property
    def frames_received(self) -> int:
        """Images that have come in while active, good or not."""
        return self._inputs.frames if self._inputs else 0

    def autostart(self) -> None:
        """Configure and activate, where the parameter of that name asks for it.

        Done by the node itself: a launch file's lifecycle request is lost when the node is
        respawned after a crash (``docs/explanation/timing.md``).
        """
        if not self._values.autostart:
            return
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    # Transitions

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the policy; a failure stands in the status, too."""
        result = super().on_configure(state)
        if result != TransitionCallbackReturn.SUCCESS:
            self._report.change(VlaStatus.UNCONFIGURED, reason('configure_failed'))
        return result

    def _configure(self) -> None:
        self.get_logger().info(f'loading {self._values.policy}')
        self._policy = load_policy(self._load, self._values, self._stop)
        manifest = self._policy.manifest
        fault = self._misfit(self._values)
        if fault:
            raise TransitionError(fault)
        example = self._policy.example_instruction()
        self._inputs = InputTopics(
            self, manifest, self._values, example, self._wake, self._on_instruction
        )
        self._inbox = self._inputs.inbox
        self._output = ChunkOutput(self, manifest, self._values, self._on_publish_failure)
        fault = unused_override(self)
        if fault:
            raise TransitionError(f'{fault} (launch argument `params_file`)')
        self.get_logger().info(
            f'loaded {manifest.name} ({manifest.fingerprint[:12]}) on '
            f'{self._policy.engine.backend}, {self._policy.engine.precision}'
        )
        self._report.change(VlaStatus.INACTIVE, '')

    def _activate(self) -> None:
        if self._worker is not None and self._worker.alive:
            raise TransitionError('the inference that hung has not returned; restart the node')
        self._inputs.clear()
        self._forget_instruction(reason('no_instruction'))
        self._report.instruction_rejected = False
        self._failures = 0
        self._fault = ''
        self._paused = False
        self._output.start_session()
        self._worker = Worker(self._take, self._run, self._deliver)
        self._active = self._inputs.active = True

    def _deactivate(self) -> None:
        if not self._active:
            return
        with self._inbox.lock:
            self._active = self._inputs.active = False
            self._hold(self._fault or reason('shutdown' if self._stop.is_set() else 'deactivated'))
            self._inbox.invalidate()
        # first of all: what waits for the inference under way must not leave an old status standing
        self._report.change(VlaStatus.FAULT if self._fault else VlaStatus.INACTIVE, self._fault)
        if not self._worker.stop(min(self._values.max_inference_time, LONGEST_PAUSE)):
            self.get_logger().error('the inference under way does not return; it is abandoned')

    def _cleanup(self) -> None:
        self._deactivate()
        if self._inputs is not None:
            self._inputs.destroy()
            self._inputs = None
        if self._output is not None:
            self._output.destroy()
            self._output = None
        hung = self._worker is not None and self._worker.alive
        if self._policy is not None and not hung:
            self._policy.close()
        self._policy = None
        self._inbox = None
        self._fault = ''
        why = reason('shutdown') if self._stop.is_set() else ''
        self._report.change(VlaStatus.UNCONFIGURED, why)

    # Callbacks: they only store

    def _on_instruction(self, message: String) -> None:
        # before anything else: a word like this must not be refused for what stands beside it
        word = stop_words_in(message.data, self._values.stop_words)
        if word and self._active:
            self._pause_for(word)
            return
        try:
            text = check_instruction(message.data)
        except InstructionError as error:
            self._refuse_instruction(error)
            return
        if not self._active:
            self.get_logger().warning(
                'instruction ignored: the node is not active', throttle_duration_sec=1.0
            )
            return
        self._report.instruction_rejected = False
        self._pending_instruction = text
        self._apply_instruction()

    def _pause_for(self, word: str) -> None:
        """Do what ``~/pause`` does; only that service ends it, no other instruction."""
        if not self._paused:
            self.get_logger().warning(
                f'paused: the instruction says {word!r}; to go on, call ~/pause with data: false'
            )
        self._paused = True
        self._pending_instruction = ''
        self._watch()

    def _apply_instruction(self) -> None:
        """Make the pending instruction the current one, but not too often."""
        text = self._pending_instruction
        since = time.monotonic() - self._instruction_changed_at
        if not text or since < self._values.min_instruction_interval:
            return
        self._pending_instruction = ''
        if text == self._inbox.instruction:  # `ros2 topic pub` repeats once a second
            self._instruction_served_at = time.monotonic()
            return
        self._instruction_changed_at = time.monotonic()
        try:
            self._policy.check_instruction(text)  # tokenises, so not for every message of a flood
        except InstructionError as error:
            self._refuse_instruction(error)
            return
        with self._inbox.lock:
            self._inbox.instruction = text
            self._instruction_served_at = time.monotonic()
            self._hold(reason('instruction_changed'))
            self._inbox.invalidate()
        self._report.instruction = text
        self.get_logger().info(f'instruction: {quoted(text)}')
        if unknown := self._policy.unknown_words(text):
            self.get_logger().warning(f'the policy never met the words {quoted(" ".join(unknown))}')
        self._wake()

    def _expire_instruction(self) -> None:
        """Forget an instruction that no chunk came of for long: motion must not resume by itself.

        Nobody expects it any more; the scene and the people around may be others.
        """
        bound = self._values.instruction_timeout
        idle = time.monotonic() - self._instruction_served_at
        if not (bound and self._inbox.instruction and idle > bound):
            return
        late = f'{idle:.1f} s without a chunk, instruction_timeout {bound:.1f} s'
        why = reason('instruction_expired', '', late)
        self.get_logger().warning(f'{why}; give it again')
        with self._inbox.lock:
            self._hold(why)
            self._forget_instruction(why)

    def _forget_instruction(self, why: str) -> None:
        self._uninstructed = why
        self._inbox.instruction = self._report.instruction = self._pending_instruction = ''
        self._inbox.invalidate()
        self._trouble = ''

    def _refuse_instruction(self, error: InstructionError) -> None:
        self.get_logger().warning(f'instruction refused: {error}', throttle_duration_sec=1.0)
        self._report.instruction_rejected = True
        self._report.publish()

    def _on_clock_jump(self, jump: TimeJump) -> None:
        self._start_again(jump.delta.nanoseconds)

    def _start_again(self, jump: int) -> None:
        """Forget what was stamped by a clock that is not the same any more."""
        if not self._active:
            return
        why = reason('clock_jump', '', f'by {seconds(jump)}')
        self.get_logger().warning(f'{why}; all images and states are forgotten')
        with self._inbox.lock:
            self._hold(why)
            self._inputs.clear()

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if not self._active:
            response.message = 'the node is not active: nothing moves, and no pause is remembered'
            return response
        self._paused = request.data
        self._watch()
        self._wake()
        response.success = True
        response.message = 'paused' if self._paused else 'running when all inputs are there'
        return response

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._fault and not self._active:
            response.success = self.trigger_activate() == TransitionCallbackReturn.SUCCESS
            response.message = 'activated again' if response.success else 'see the log'
        elif self._active:
            with self._inbox.lock:
                self._hold(reason('reset'))
                self._inputs.clear()
                self._forget_instruction(reason('no_instruction'))
            response.success = True
            response.message = 'waiting for an instruction'
        elif self._stop.is_set():
            response.message = 'the node is shutting down; start it again'
        else:
            response.message = 'the node is not active; configure and activate it'
        return response

    def _misfit(self, values: SimpleNamespace) -> str | None:
        return misfit(values, self._policy.manifest if self._policy else None)

    def _on_parameters(self, values: SimpleNamespace) -> None:
        if self._inbox is not None:
            self._inbox.limits = limits_from(values)

    # The inference thread

    def _take(self) -> Job | None:
        if not self._active or self._paused or self._fault:
            return None
        action = self._policy.manifest.action
        steps = self._values.replan_steps or action.chunk_length
        # a quarter of a period less, or a camera's jitter would cost every other frame
        interval = nanoseconds((steps - 0.25) * action.control_period)
        try:
            return self._inbox.take(self._now(), time.monotonic_ns(), interval)
        except NotReadyError:
            return None

    def _run(self, job: Job) -> Result:
        return run_job(self._policy, job, self._now() - job.stamp, self._inputs.pictures)

    def _deliver(self, job: Job, outcome: Result | Exception) -> float:
        """Publish what came of a job, if it may still be acted on; return the pause after it."""
        with self._inbox.lock:
            now = self._now()
            void = (
                job.generation != self._inbox.generation
                or not self._active
                or self._paused
                or self._fault
            )
            if not void and isinstance(outcome, InputError):
                self._hold(self._inputs.refuse(job, outcome))
                return 0.0
            if not void:
                self._inbox.accept()
            if void or self._inbox.fault(now, time.monotonic_ns()):
                self.counts['discarded'] += 1
                return 0.0
            if isinstance(outcome, Exception):
                return self._fail(job, outcome)
            try:
                self._send(job, outcome)
            except PolicyOutputError as error:
                return self._fail(job, error)
            return 0.0

    def _send(self, job: Job, result: Result) -> None:
        values = self._values
        prediction = result.prediction
        chunk, clamped = limit_chunk(
            prediction.chunk, values.max_step_translation, values.max_step_rotation
        )
        stats = self._output.stats_message(job, result.observation_age, prediction, result.decode)
        now = self._now()
        period = nanoseconds(chunk.period)
        latency = now - job.stamp
        self.counts['overruns'] += latency > (values.replan_steps or len(chunk)) * period
        stamp = now + nanoseconds(values.start_delay)
        if values.anchor == 'observation':
            past = min(-(-latency // period), len(chunk))
            chunk = chunk.without_head(past)
            stamp = job.stamp + past * period
            if not len(chunk):
                lasts = prediction.chunk.period * len(prediction.chunk)
                late = f'{seconds(latency)} after the images, a chunk lasts {lasts:.3f} s'
                self._trouble = reason('too_late', '', late)
                self._output.hold(self._trouble, job.instruction, stats)
                return
        if not self._output.send(chunk, stamp, job, stats, clamped):
            return
        published = time.monotonic_ns()
        self._instruction_served_at = time.monotonic()
        self._failures = 0
        self._trouble = ''
        self.counts['sent'] += 1
        self._report.chunks = self._output.chunks
        self.counts['clamped'] += clamped
        for outside in result.outside:  # within max_state_excess; the policy saw the bound itself
            name = f'outside_{outside.name}'
            self.counts[name] = self.counts.get(name, 0) + 1
        preprocess = result.decode + prediction.times.preprocess
        total = (published - job.arrived) * 1e-9
        self.history.add(
            preprocess=preprocess,
            encode=prediction.times.encode,
            act=prediction.times.act,
            total=total,
            overhead=total - preprocess - prediction.times.inference,
            camera_delay=job.delay * 1e-9,
        )
        for camera, kept in zip(stats.cameras, prediction.kept, strict=True):
            self.counts[f'kept_{camera}'] = kept
        self._output.send_kept_patches(prediction, job.stamp)

    def _fail(self, job: Job, error: Exception) -> float:
        """Hold after a failed inference; return how long to wait before the next try [s]."""
        bad_output = isinstance(error, PolicyOutputError)
        self._failures += 1
        self.counts['failed'] += 1
        self._trouble = reason('bad_output' if bad_output else 'engine_error')
        said = one_line(repr(error))
        self.get_logger().error(f'inference failed ({self._failures} in a row): {said}')
        self._inbox.invalidate()
        if self._failures >= self._values.max_failures:
            self._fault = reason('fault', kind(self._trouble))
        self._output.hold(
            self._fault or self._trouble, job.instruction, self._output.stats_message(job)
        )
        return min(0.1 * 2 ** (self._failures - 1), LONGEST_PAUSE)

    # Supervision

    def _watch(self) -> None:
        """Judge whether the robot may move; hold at once when it may not."""
        jump = self._clock_watch.jump()
        if not self._active:
            return
        if jump:
            self._start_again(jump)
        self._apply_instruction()
        self._expire_instruction()
        with self._inbox.lock:
            state, why = self._judge()
            if state == VlaStatus.FAULT:
                self._fault = why
            elif state != VlaStatus.RUNNING and self._output.moving:
                self._hold(why)
                self._inbox.invalidate()
        if state == VlaStatus.FAULT:
            self.trigger_deactivate()
        else:
            self._report.change(state, why)

    def _judge(self) -> tuple[int, str]:
        if self._fault:
            return VlaStatus.FAULT, self._fault
        busy, bound = self._worker.busy_for(), self._values.max_inference_time
        if busy > bound:
            late = f'{busy:.3f} s, max_inference_time {bound:.3f} s'
            return VlaStatus.FAULT, reason('inference_timeout', '', late)
        if not self._worker.alive:  # an error of ours; its traceback is on stderr
            return VlaStatus.FAULT, reason('fault', 'inference_thread')
        if self._paused:
            return VlaStatus.HOLDING, reason('paused')
        now = self._now()
        if now == 0:
            return VlaStatus.WAITING, reason('no_clock')
        why = self._inbox.fault(now, time.monotonic_ns())
        if why:
            moved = self._output.moving or self._trouble
            return VlaStatus.HOLDING if moved else VlaStatus.WAITING, why
        if not self._inbox.instruction:
            return VlaStatus.WAITING, self._uninstructed
        if self._trouble:
            return VlaStatus.HOLDING, self._trouble
        if self._output.moving:
            return VlaStatus.RUNNING, ''
        return VlaStatus.WAITING, reason('waiting_for_chunk')

    def _hold(self, why: str) -> None:
        """Take back a motion that has been sent; nothing to do when none was."""
        if self._output.moving:
            self._trouble = why
            self._output.hold(why, self._inbox.instruction)

    def _on_publish_failure(self, what: str, error: Exception) -> None:
        """Go into a fault: whoever relies on this node's messages does not get them all.

        Called from the inference thread, too.
        """
        said = one_line(repr(error))
        self.get_logger().error(f'cannot publish {what}: {said}', throttle_duration_sec=5.0)
        if self._active and not self._fault:
            self._fault = reason('fault', f'publish_{what}')

    def _advice(self) -> str:
        return self._inputs.advice() if self._active else ''

    def _wake(self) -> None:
        if self._worker is not None:
            self._worker.wake()

    def _heartbeat(self) -> None:
        inbox, policy = self._inbox, self._policy
        if self._output:
            self._report.chunks = self._output.chunks
        self._report.publish_diagnostics(
            manifest=policy.manifest if policy else None,
            engine=policy.engine if policy else None,
            history=self.history,
            inputs=inbox.counts if inbox else {},
            input_fault=inbox.fault(self._now(), time.monotonic_ns()) if self._active else '',
            counts=self.counts,
            failures=self._failures,
        )
        self._report.publish()

    def _now(self) -> int:
        return self.get_clock().now().nanoseconds


def main() -> int:
    """Run the policy node."""

    def build(stop: threading.Event) -> PolicyNode:
        node = PolicyNode(stop)
        node.autostart()
        return node

    return run_node(build)


if __name__ == '__main__':
    sys.exit(main())
