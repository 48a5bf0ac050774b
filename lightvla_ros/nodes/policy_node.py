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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from rclpy.clock import Clock, ClockType, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.event_handler import QoSRequestedIncompatibleQoSInfo, SubscriptionEventCallbacks
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from lightvla_ros.contract import ContractError
from lightvla_ros.engine.base import EngineError
from lightvla_ros.images import ImageError
from lightvla_ros.inbox import Inbox, Job, NotReadyError
from lightvla_ros.instruction import InstructionError, check_instruction
from lightvla_ros.msg import VlaStatus
from lightvla_ros.nodes.chunk_output import ChunkOutput
from lightvla_ros.nodes.conversions import (
    check_image_message,
    gripper_from_message,
    image_from_message,
    pose_from_message,
    stamp_ns,
    time_message,
)
from lightvla_ros.nodes.diagnostics import StageHistory, diagnostic
from lightvla_ros.nodes.lifecycle import GuardedLifecycleNode, TransitionError
from lightvla_ros.nodes.policy_parameters import POLICY_PARAMETERS, limits_from, nanoseconds
from lightvla_ros.nodes.spin import run_node
from lightvla_ros.nodes.worker import Worker
from lightvla_ros.policy import Observation, Policy, PolicyOutputError, Prediction
from lightvla_ros.proprio import state_vector
from lightvla_ros.reasons import reason
from lightvla_ros.safety import limit_chunk

WATCHDOG_PERIOD = 0.02
LONGEST_PAUSE = 2.0  # between tries with an engine that fails [s]
SENSOR_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED_QOS = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
STATE_NAMES = {
    getattr(VlaStatus, name): name
    for name in ('UNCONFIGURED', 'INACTIVE', 'WAITING', 'RUNNING', 'HOLDING', 'FAULT')
}


@dataclass(frozen=True)
class Result:
    """A prediction with what the node measured around it."""

    prediction: Prediction
    decode: float
    observation_age: int


class InputError(Exception):
    """A job's message turned out to be no good when it was decoded."""

    def __init__(self, source: str, code: str, text: str) -> None:
        super().__init__(text)
        self.source = source
        self.code = code


class PolicyNode(GuardedLifecycleNode):
    """Lifecycle node around one policy.

    :param stop: Set when the process is asked to end; loading gives up then.
    :param load: Builds the policy from folder, engine and options; tests put theirs here.
    """

    def __init__(
        self,
        stop: threading.Event | None = None,
        load: Callable[..., Policy] = Policy.load,
        **options,
    ) -> None:
        super().__init__('lightvla', **options)
        self.history = StageHistory()
        self.counts = dict.fromkeys(('sent', 'clamped', 'discarded', 'failed', 'overruns'), 0)
        self.frames_received = 0
        self._stop = stop or threading.Event()
        self._load = load
        self._values = POLICY_PARAMETERS.declare(self, on_change=self._on_parameters)
        self._policy: Policy | None = None
        self._inbox: Inbox | None = None
        self._output: ChunkOutput | None = None
        self._worker: Worker[Job, Result] | None = None
        self._inputs = []
        self._active = False
        self._paused = False
        self._pending_instruction = ''
        self._instruction_changed_at = -math.inf
        self._instruction_rejected = False
        self._failures = 0
        self._trouble = ''  # why the last chunk was a hold, until the next one with steps
        self._fault = ''
        self._state = (VlaStatus.UNCONFIGURED, '')
        self._status_publisher = self.create_publisher(VlaStatus, '~/status', LATCHED_QOS)
        self._diagnostics_publisher = self.create_publisher(
            DiagnosticArray, '/diagnostics', QoSProfile(depth=1)
        )
        self.create_service(Trigger, '~/reset', self._on_reset)
        self.create_service(SetBool, '~/pause', self._on_pause)
        # Steady clocks: timers on ROS time stop when /clock stops, and that is when a watchdog is
        # needed. They also end rclpy's habit of sleeping through SIGTERM without any timer.
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(WATCHDOG_PERIOD, self._watch, clock=self._steady)
        self.create_timer(1.0, self._publish_diagnostics, clock=self._steady)
        # The handle must be kept: rclpy calls it even when it has been collected.
        self._jump_handle = self.get_clock().create_jump_callback(
            JumpThreshold(
                min_forward=Duration(seconds=1),
                min_backward=Duration(nanoseconds=-1),
                on_clock_change=True,
            ),
            post_callback=self._on_clock_jump,
        )
        self._publish_status()

    def autostart(self) -> None:
        """Configure and activate, where the parameter of that name asks for it.

        Done by the node itself: a launch file's lifecycle request is lost when the node is
        respawned after a crash (``reference/ros.md`` A.3).
        """
        if not self._values.autostart:
            return
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def shut_down(self) -> None:
        """Hold and free everything, while publishing is still possible."""
        self._guarded('deactivate', self._deactivate)
        self._guarded('shut down', self._cleanup)

    # Transitions

    def _configure(self) -> None:
        if not self._values.policy:
            raise TransitionError('the parameter `policy` is empty; set it to a policy folder')
        self._policy = self._load_policy()
        manifest = self._policy.manifest
        cameras = tuple(camera.name for camera in manifest.cameras)
        layout = manifest.proprio.layout if manifest.proprio else ()
        states = ('ee_pose',) if {'ee_position', 'ee_axis_angle'} & set(layout) else ()
        states += ('gripper_state',) if 'gripper_qpos' in layout else ()
        self._inbox = Inbox(cameras, states, limits_from(self._values))
        self._output = ChunkOutput(self, manifest, self._values)
        raw = self._values.image_transport == 'raw'
        for name in cameras:
            # Resolve first, then add the suffix, so that a remapped camera keeps its transport.
            topic = self.resolve_topic_name(f'{name}/image') + ('' if raw else '/compressed')
            kind = Image if raw else CompressedImage
            self._subscribe(kind, topic, partial(self._on_image, name), SENSOR_QOS)
        for name in states:
            kind, callback = {
                'ee_pose': (PoseStamped, self._on_pose),
                'gripper_state': (JointState, self._on_gripper),
            }[name]
            self._subscribe(kind, name, callback, SENSOR_QOS)
        # Volatile, as `ros2 topic pub` publishes: a robot that restarts must not find an old order.
        self._subscribe(String, 'instruction', self._on_instruction, QoSProfile(depth=1))
        self.get_logger().info(
            f'loaded {manifest.name} ({manifest.fingerprint[:12]}) on '
            f'{self._policy.engine.backend}, {self._policy.engine.precision}'
        )
        self._report(VlaStatus.INACTIVE, '')

    def _activate(self) -> None:
        if self._worker is not None and self._worker.alive:
            raise TransitionError('the inference that hung has not returned; restart the node')
        self._inbox.clear()
        self._inbox.instruction = ''
        self._pending_instruction = ''
        self._instruction_rejected = False
        self._failures = 0
        self._trouble = ''
        self._fault = ''
        self._paused = False
        self._output.start_session()
        self._worker = Worker(self._take, self._run, self._deliver)
        self._active = True

    def _deactivate(self) -> None:
        if not self._active:
            return
        with self._inbox.lock:
            self._active = False
            self._hold(self._fault or reason('shutdown' if self._stop.is_set() else 'deactivated'))
            self._inbox.invalidate()
        if not self._worker.stop(min(self._values.max_inference_time, LONGEST_PAUSE)):
            self.get_logger().error('the inference under way does not return; it is abandoned')
        self._report(VlaStatus.FAULT if self._fault else VlaStatus.INACTIVE, self._fault)

    def _cleanup(self) -> None:
        self._deactivate()
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs.clear()
        if self._output is not None:
            self._output.destroy()
            self._output = None
        hung = self._worker is not None and self._worker.alive
        if self._policy is not None and not hung:
            self._policy.close()
        self._policy = None
        self._inbox = None
        self._fault = ''
        self._report(VlaStatus.UNCONFIGURED, '')

    def _load_policy(self) -> Policy:
        """Load and check the policy in a thread, so that a request to end is heard meanwhile."""
        outcome = []

        def load() -> None:
            try:
                policy = self._load(
                    Path(self._values.policy),
                    self._values.engine,
                    provider=self._values.provider,
                    threads=self._values.threads,
                )
                policy.replay_golden()
                outcome.append(policy)
            except Exception as error:
                outcome.append(error)

        self.get_logger().info(f'loading {self._values.policy}')
        thread = threading.Thread(target=load, name='load', daemon=True)
        thread.start()
        while thread.is_alive():
            if self._stop.is_set():
                raise TransitionError('asked to end while loading')
            thread.join(0.1)
        if isinstance(outcome[0], ContractError | EngineError):
            raise TransitionError(str(outcome[0]))
        if isinstance(outcome[0], Exception):
            raise outcome[0]
        return outcome[0]

    def _subscribe(self, kind: type, topic: str, callback: Callable, qos: QoSProfile) -> None:
        name = self.resolve_topic_name(topic)

        def incompatible(event: QoSRequestedIncompatibleQoSInfo) -> None:
            self.get_logger().error(
                f'a publisher of {name} offers another QoS than is asked for '
                f'({event.last_policy_kind}); no message will come from it'
            )

        self._inputs.append(
            self.create_subscription(
                kind,
                topic,
                callback,
                qos,
                event_callbacks=SubscriptionEventCallbacks(incompatible_qos=incompatible),
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )
        )

    # Callbacks: they only store

    def _on_image(self, camera: str, message: Image | CompressedImage) -> None:
        try:
            check_image_message(message)
        except ImageError as error:
            self._reject(camera, error.code, str(error))
            return
        self._offer(camera, message)

    def _on_pose(self, message: PoseStamped) -> None:
        frame = message.header.frame_id
        if frame != self._values.base_frame:
            text = f'frame is {frame!r}, base_frame is {self._values.base_frame!r}'
            self._reject('ee_pose', 'bad_frame', text)
            return
        self._offer('ee_pose', message)

    def _on_gripper(self, message: JointState) -> None:
        self._offer('gripper_state', message)

    def _offer(self, source: str, message: Image | PoseStamped | JointState) -> None:
        if not self._active:
            return
        if isinstance(message, Image | CompressedImage):
            self.frames_received += 1
        else:
            try:
                self._read_state(source, message)
            except ValueError as error:
                self._reject(source, 'bad_state', str(error))
                return
        now = self.get_clock().now().nanoseconds
        why = self._inbox.offer(
            source, message, stamp_ns(message.header.stamp), now, time.monotonic_ns()
        )
        if why:
            self.get_logger().warning(f'message dropped: {why}', throttle_duration_sec=5.0)
        else:
            self._worker.wake()

    def _reject(self, source: str, code: str, text: str) -> None:
        why = self._inbox.reject(source, code)
        self.get_logger().warning(f'message dropped: {why}: {text}', throttle_duration_sec=5.0)

    def _on_instruction(self, message: String) -> None:
        try:
            text = check_instruction(message.data)
        except InstructionError as error:
            self.get_logger().warning(f'instruction refused: {error}', throttle_duration_sec=1.0)
            self._instruction_rejected = True
            self._publish_status()
            return
        if not self._active:
            self.get_logger().warning(
                'instruction ignored: the node is not active', throttle_duration_sec=1.0
            )
            return
        self._instruction_rejected = False
        self._pending_instruction = text
        self._apply_instruction()

    def _apply_instruction(self) -> None:
        """Make the pending instruction the current one, but not too often."""
        text = self._pending_instruction
        since = time.monotonic() - self._instruction_changed_at
        if not text or since < self._values.min_instruction_interval:
            return
        self._pending_instruction = ''
        if text == self._inbox.instruction:  # `ros2 topic pub` repeats once a second
            return
        self._instruction_changed_at = time.monotonic()
        with self._inbox.lock:
            self._inbox.instruction = text
            self._hold(reason('instruction_changed'))
            self._inbox.invalidate()
        self.get_logger().info(f'instruction: {text}')
        self._worker.wake()

    def _on_clock_jump(self, _: TimeJump) -> None:
        if not self._active:
            return
        with self._inbox.lock:
            self._hold(reason('clock_jump'))
            self._inbox.clear()

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._paused = request.data
        if self._active:
            self._watch()
            self._worker.wake()
        response.success = True
        response.message = 'paused' if self._paused else 'running when all inputs are there'
        return response

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._fault:
            response.success = self.trigger_activate() == TransitionCallbackReturn.SUCCESS
            response.message = 'activated again' if response.success else 'see the log'
        elif self._active:
            with self._inbox.lock:
                self._hold(reason('reset'))
                self._inbox.clear()
                self._inbox.instruction = ''
            self._pending_instruction = ''
            self._trouble = ''
            response.success = True
            response.message = 'waiting for an instruction'
        else:
            response.message = 'the node is not active; configure and activate it'
        return response

    def _on_parameters(self, values: SimpleNamespace) -> None:
        if self._inbox is not None:
            self._inbox.limits = limits_from(values)

    # The inference thread

    def _take(self) -> Job | None:
        if not self._active or self._paused or self._fault:
            return None
        action = self._policy.manifest.action
        steps = self._values.replan_steps or action.chunk_length
        interval = nanoseconds(steps * action.control_period)
        try:
            return self._inbox.take(self._now(), time.monotonic_ns(), interval)
        except NotReadyError:
            return None

    def _run(self, job: Job) -> Result:
        age = self._now() - job.stamp
        started = time.perf_counter()
        manifest = self._policy.manifest
        images = []
        for camera, message in zip(manifest.cameras, job.frames, strict=True):
            try:
                images.append(image_from_message(message))
            except ImageError as error:
                raise InputError(camera.name, error.code, str(error)) from None
        proprio = None
        if manifest.proprio is not None:
            parts = {}
            for message in job.states:
                source = 'ee_pose' if isinstance(message, PoseStamped) else 'gripper_state'
                parts.update(self._read_state(source, message))
            proprio = state_vector(manifest.proprio, **parts)
        decoded = time.perf_counter()
        prediction = self._policy.infer(Observation(tuple(images), job.instruction, proprio))
        return Result(prediction, decoded - started, age)

    def _read_state(self, source: str, message: PoseStamped | JointState) -> dict[str, np.ndarray]:
        """Read a state message; ValueError when it holds no state to act on."""
        if source == 'ee_pose':
            position, quaternion = pose_from_message(message)
            return {'position': position, 'quaternion': quaternion}
        return {'gripper_qpos': gripper_from_message(message)}

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
            if void or self._inbox.fault(now, time.monotonic_ns()):
                self.counts['discarded'] += 1
                return 0.0
            if isinstance(outcome, InputError):
                self._inbox.reject(outcome.source, outcome.code, job.stamp)
                self.get_logger().warning(f'image dropped: {outcome}', throttle_duration_sec=5.0)
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
                self._output.hold(reason('too_late'), job.instruction, stats)
                self._trouble = reason('too_late')
                return
        self._output.send(chunk, stamp, job, stats, clamped)
        published = time.monotonic_ns()
        self._failures = 0
        self._trouble = ''
        self.counts['sent'] += 1
        self.counts['clamped'] += clamped
        preprocess = result.decode + prediction.times.preprocess
        total = (published - job.arrived) * 1e-9
        self.history.add(
            preprocess=preprocess,
            encode=prediction.times.encode,
            act=prediction.times.act,
            total=total,
            overhead=total - preprocess - prediction.times.inference,
        )
        for camera, kept in zip(stats.cameras, prediction.kept, strict=True):
            self.history.add(**{f'kept_{camera}': kept * 1e-3})
        self._output.send_kept_patches(prediction, job.stamp)

    def _fail(self, job: Job, error: Exception) -> float:
        """Hold after a failed inference; return how long to wait before the next try [s]."""
        bad_output = isinstance(error, PolicyOutputError)
        self._failures += 1
        self.counts['failed'] += 1
        self._trouble = reason('bad_output' if bad_output else 'engine_error')
        self.get_logger().error(f'inference failed ({self._failures} in a row): {error!r}')
        self._inbox.invalidate()
        if self._failures >= self._values.max_failures:
            self._fault = reason('fault', self._trouble)
        self._output.hold(
            self._fault or self._trouble, job.instruction, self._output.stats_message(job)
        )
        return min(0.1 * 2 ** (self._failures - 1), LONGEST_PAUSE)

    # Supervision

    def _watch(self) -> None:
        """Judge whether the robot may move; hold at once when it may not."""
        if not self._active:
            return
        self._apply_instruction()
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
            self._report(state, why)

    def _judge(self) -> tuple[int, str]:
        if self._fault:
            return VlaStatus.FAULT, self._fault
        if self._worker.busy_for() > self._values.max_inference_time:
            return VlaStatus.FAULT, reason('inference_timeout')
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
            return VlaStatus.WAITING, reason('no_instruction')
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

    def _report(self, state: int, why: str) -> None:
        if (state, why) != self._state:
            log = self.get_logger()
            # Each severity needs a line of its own: rclpy ties a severity to the calling line.
            if state == VlaStatus.FAULT:
                log.error(f'{STATE_NAMES[state]}: {why}')
            elif state == VlaStatus.HOLDING:
                log.warning(f'{STATE_NAMES[state]}: {why}')
            else:
                log.info(f'{STATE_NAMES[state]}{": " if why else ""}{why}')
            self._state = (state, why)
            self._publish_status()
        elif state == VlaStatus.WAITING:
            self.get_logger().warning(f'waiting: {why}', throttle_duration_sec=5.0)

    def _publish_status(self) -> None:
        state, why = self._state
        message = VlaStatus(state=state, reason=why)
        if self._instruction_rejected and not why:
            message.reason = reason('instruction_rejected')
        message.header.stamp = time_message(self._now())
        message.instruction = self._inbox.instruction if self._inbox else ''
        message.chunks = self._output.chunks if self._output else 0
        self._status_publisher.publish(message)

    def _now(self) -> int:
        return self.get_clock().now().nanoseconds

    def _publish_diagnostics(self) -> None:
        """Once a second: diagnostics in the standard format, and the status as a heartbeat."""
        ok, warn, error = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
        state, why = self._state
        level = {
            VlaStatus.RUNNING: ok,
            VlaStatus.HOLDING: error,
            VlaStatus.FAULT: error,
        }.get(state, warn)
        engine = self._policy.engine if self._policy else None
        identity = self._policy.manifest.fingerprint[:12] if self._policy else ''
        inputs = dict(self._inbox.counts) if self._inbox else {}
        # what keeps images from coming is not the engine's trouble, nor the other way round
        input_fault = self._inbox.fault(self._now(), time.monotonic_ns()) if self._active else ''
        engine_level = error if self._fault else (warn if self._failures else ok)
        statuses = [
            diagnostic('cameras', error if input_fault else ok, input_fault, inputs, identity),
            diagnostic(
                'engine',
                engine_level if engine else warn,
                self._fault or (engine.backend if engine else 'not loaded'),
                {'failures_in_a_row': self._failures},
                identity,
            ),
            diagnostic('inference', engine_level, '', self.history.summary(), identity),
            diagnostic(
                'output', level, f'{STATE_NAMES[state]} {why}'.strip(), self.counts, identity
            ),
        ]
        message = DiagnosticArray(status=statuses)
        message.header.stamp = time_message(self._now())
        self._diagnostics_publisher.publish(message)
        self._publish_status()


def main() -> int:
    """Run the policy node."""

    def build(stop: threading.Event) -> PolicyNode:
        node = PolicyNode(stop)
        node.autostart()
        return node

    return run_node(build)


if __name__ == '__main__':
    sys.exit(main())
