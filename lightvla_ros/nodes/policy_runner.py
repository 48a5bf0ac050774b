"""Runs a loaded policy, from stored inputs to published chunks.

Callbacks only store the newest message. A separate thread runs the policy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import String

from lightvla_ros.errors import InstructionError, PolicyOutputError, one_line, quoted
from lightvla_ros.nodes.chunk_markers import ChunkMarkers
from lightvla_ros.nodes.conversions import InputError, nanoseconds
from lightvla_ros.nodes.inference_record import inference_message
from lightvla_ros.nodes.policy_inputs import InputTopics, Result, measured_state, run_job
from lightvla_ros.nodes.policy_outputs import ChunkOutput, SentChunk
from lightvla_ros.nodes.policy_statistics import ChunkStatistics
from lightvla_ros.nodes.recorder import NoRecorder
from lightvla_ros.nodes.status_report import StatusReport
from lightvla_ros.policy.actions import limit_chunk
from lightvla_ros.policy.familiarity import load_alarm
from lightvla_ros.policy.policy import Policy, Prediction
from lightvla_ros.policy.prompt import check_instruction, stop_words_in
from lightvla_ros.policy.state import RobotState
from lightvla_ros.runtime.chunk_schedule import starting
from lightvla_ros.runtime.inbox import Job, seconds
from lightvla_ros.runtime.instruction_gate import InstructionGate
from lightvla_ros.runtime.reasons import reason
from lightvla_ros.runtime.supervisor import Situation, State, Supervisor
from lightvla_ros.runtime.worker import Worker

LONGEST_WAIT = 2.0  # for the running inference, when deactivated [s]


class PolicyRunner:
    """Runs a policy on its inputs while it is active, and publishes chunks and holds.

    Methods are called from the node's callbacks, unless their docstring says otherwise.

    :param values: The node's parameters; changeable ones are read anew each time.
    :param report: Status report, which is updated with instructions and chunks.
    :param on_publish_failure: Called with the name of the message that could not be published,
        and the error.
    :param recorder: Gets the inputs, the chunks, and what each inference was given and answered.
    :param onlookers: Called with each chunk that was published, in the inference thread, while the
        inbox is locked; they must be quick.
    """

    def __init__(
        self,
        node: LifecycleNode,
        policy: Policy,
        values: SimpleNamespace,
        report: StatusReport,
        statistics: ChunkStatistics,
        on_publish_failure: Callable[[str, Exception], None],
        recorder: NoRecorder,
        onlookers: Sequence[Callable[[SentChunk], None]] = (),
    ) -> None:
        self.policy = policy
        self.supervisor = Supervisor()
        self._node = node
        self._log = node.get_logger()
        self._values = values
        self._report = report
        self._statistics = statistics
        self._recorder = recorder
        self._alarm = load_alarm(policy)
        self._fingerprint = policy.manifest.fingerprint
        self._inference_topic = node.resolve_topic_name('~/inference')
        self._gate = InstructionGate()
        self._uninstructed = reason('no_instruction')  # why there is no instruction
        self._worker: Worker[Job, Result] | None = None
        self.inputs = InputTopics(
            node,
            policy.manifest,
            values,
            policy.example_instruction(),
            self.wake,
            self.on_instruction,
            recorder,
        )
        self.inbox = self.inputs.inbox
        self.output = ChunkOutput(node, policy.manifest, values, on_publish_failure, recorder)
        self._markers = ChunkMarkers(node, policy.manifest, values)
        self._onlookers = (self._markers.on_sent, *onlookers)

    @property
    def hangs(self) -> bool:
        """Whether the inference thread is running, also after :meth:`stop`."""
        return self._worker is not None and self._worker.alive

    def start(self) -> None:
        """Begin a session without an instruction; earlier faults are forgotten."""
        self.inputs.clear()
        self._forget_instruction(reason('no_instruction'))
        self._report.instruction_rejected = False
        self.output.start_session()
        self._worker = Worker(self._take, self._run, self._deliver)
        self.supervisor = Supervisor(active=True)
        self.inputs.active = True

    def end(self, why: str) -> None:
        """Hold for a fault's reason or else for ``why``, and accept no more input; do not wait."""
        with self.inbox.lock:
            self.supervisor.active = self.inputs.active = False
            self._hold(self.supervisor.fault or why)
            self.inbox.invalidate()

    def stop(self) -> None:
        """End the inference thread; wait for the running inference for a limited time."""
        if not self._worker.stop(min(self._values.max_inference_time, LONGEST_WAIT)):
            self._log.error('the running inference does not return; it is abandoned')

    def close(self) -> None:
        """Remove topics and free the policy, unless an inference still uses it."""
        self.inputs.destroy()
        self.output.destroy()
        self._markers.destroy()
        if not self.hangs:
            self.policy.close()

    def wake(self) -> None:
        """Wake the inference thread because there is new input. Safe from any thread."""
        if self._worker is not None:
            self._worker.wake()

    def pause(self, paused: bool) -> None:
        """Pause or resume; :meth:`watch` publishes the hold."""
        self.supervisor.paused = paused
        self.wake()

    def reset(self) -> None:
        """Forget the instruction and all inputs."""
        with self.inbox.lock:
            self._hold(reason('reset'))
            self.inputs.clear()
            self._forget_instruction(reason('no_instruction'))

    def withdraw(self, text: str) -> None:
        """Take back an instruction, if it is in force or waits for that, and hold."""
        self._gate.withdraw(text)
        with self.inbox.lock:
            if self.inbox.instruction == text:
                why = reason('run_ended')
                self._hold(why)
                self._forget_instruction(why)

    def start_again(self, jump: int) -> None:
        """Forget all inputs stamped before a clock jump.

        :param jump: By how much the clock jumped [ns].
        """
        why = reason('clock_jump', '', f'by {seconds(jump)}')
        self._log.warning(f'{why}; all images and states are forgotten')
        with self.inbox.lock:
            self._hold(why)
            self.inputs.clear()

    def watch(self) -> tuple[State, str]:
        """Decide whether the robot may move; hold at once when it may not."""
        self._follow_instruction()
        self._expire_instruction()
        with self.inbox.lock:
            now = self._now()
            situation = Situation(
                clock=now != 0,
                inputs=self.inbox.fault(now, time.monotonic_ns()) if now else '',
                uninstructed='' if self.inbox.instruction else self._uninstructed,
                moving=self.output.moving,
                busy=self._worker.busy_for(),
                alive=self._worker.alive,
            )
            state, why = self.supervisor.judge(situation, self._values.max_inference_time)
            if state != State.RUNNING and self.output.moving:
                self._hold(why)
                self.inbox.invalidate()
        return state, why

    def input_fault(self) -> str:
        """Return the reason why there is no observation; empty while inactive."""
        active = self.supervisor.active
        return self.inbox.fault(self._now(), time.monotonic_ns()) if active else ''

    def advice(self) -> str:
        """Return one line that says what to do so that the robot moves; empty while inactive."""
        return self.inputs.advice() if self.supervisor.active else ''

    def _hold(self, why: str) -> None:
        """Publish a hold if the last chunk had steps; otherwise do nothing."""
        if self.output.moving:
            self.supervisor.trouble = why
            self.output.hold(why, self.inbox.instruction)

    def on_instruction(self, message: String) -> None:
        """Accept, refuse or obey an instruction."""
        # first of all: a stop word must work even if the rest of the instruction is refused
        word = stop_words_in(message.data, self._values.stop_words)
        if word and self.supervisor.active:
            self._pause_for(word)
            return
        try:
            text = check_instruction(message.data)
        except InstructionError as error:
            self._refuse_instruction(error)
            return
        if not self.supervisor.active:
            self._log.warning(
                'instruction ignored: the node is not active', throttle_duration_sec=1.0
            )
            return
        self._report.instruction_rejected = False
        self._gate.offer(text)
        self._follow_instruction()

    def _pause_for(self, word: str) -> None:
        """Pause as ``~/pause`` does; only that service resumes, no other instruction does."""
        if not self.supervisor.paused:
            self._log.warning(
                f'paused: the instruction says {word!r}; to resume, call ~/pause with data: false'
            )
        self._gate.withdraw()
        self.pause(True)
        self._report.change(*self.watch())

    def _follow_instruction(self) -> None:
        """Make the newest instruction the current one, but not too often."""
        now, current = time.monotonic(), self.inbox.instruction
        text = self._gate.next(current, now, self._values.min_instruction_interval)
        if not text:
            return
        try:
            self.policy.check_instruction(text)  # tokenises; too slow for each message of a flood
        except InstructionError as error:
            self._refuse_instruction(error)
            return
        with self.inbox.lock:
            self.inbox.instruction = text
            self._gate.served(now)
            self._hold(reason('instruction_changed'))
            self.inbox.invalidate()
        self._report.instruction = text
        self._log.info(f'instruction: {quoted(text)}')
        if unknown := self.policy.unknown_words(text):
            self._log.warning(f'the policy does not know the words {quoted(" ".join(unknown))}')
        self.wake()

    def _expire_instruction(self) -> None:
        why = self._gate.expiry(time.monotonic(), self._values.instruction_timeout)
        if why and self.inbox.instruction:
            self._log.warning(f'{why}; give it again')
            with self.inbox.lock:
                self._hold(why)
                self._forget_instruction(why)

    def _forget_instruction(self, why: str) -> None:
        self._uninstructed = why
        self.inbox.instruction = self._report.instruction = ''
        self._gate.withdraw()
        self.inbox.invalidate()
        self.supervisor.trouble = ''

    def _refuse_instruction(self, error: InstructionError) -> None:
        self._log.warning(f'instruction refused: {error}', throttle_duration_sec=1.0)
        self._report.instruction_rejected = True
        self._report.publish()

    # In the inference thread

    def _take(self) -> Job | None:
        if not self.supervisor.may_infer:
            return None
        action = self.policy.manifest.action
        steps = self._values.replan_steps or action.chunk_length
        # a quarter of a period less, because with a camera's jitter every other frame would be lost
        interval = nanoseconds((steps - 0.25) * action.control_period)
        return self.inbox.take(self._now(), time.monotonic_ns(), interval)

    def _run(self, job: Job) -> Result:
        state = measured_state(job)
        if self._values.roll_state:
            state = self._rolled(state, job)
        try:
            age = self._now() - job.stamp
            result = run_job(self.policy, job, state, age, self.inputs.pictures)
            if self._values.max_unfamiliarity:
                result = self._judged(result)
        except Exception as error:
            self._record(job, state, error)
            raise
        self._record(job, state, result.prediction)
        return result

    def _record(self, job: Job, state: RobotState, outcome: Prediction | Exception) -> None:
        topics, frame = self.inputs.image_topics, self._values.base_frame
        make = partial(inference_message, self._fingerprint, job, state, topics, frame, outcome)
        self._recorder.put(self._inference_topic, make)

    def _rolled(self, state: RobotState, job: Job) -> RobotState:
        """Return the state when the job's chunk is expected to start; see ``rolled_state.py``."""
        with self.inbox.lock:
            committed = self.output.committed
            starts = job.stamp + committed.delay
            return committed.rolled(state, job.states['ee_pose'].stamp, starts)

    def _deliver(self, job: Job, outcome: Result | Exception) -> float:
        """Publish a job's result if it may still be acted on; return the pause after it [s]."""
        pause = self._act_on(job, outcome)
        if isinstance(outcome, Result):  # behind the chunk, which does not wait for a score
            self._statistics.score = self._judged(outcome).score
        return pause

    def _judged(self, result: Result) -> Result:
        """Add the alarm's score."""
        if self._alarm is None or result.score is not None:
            return result
        return replace(result, score=self._alarm.judge(result.observation, result.prediction))

    def _act_on(self, job: Job, outcome: Result | Exception) -> float:
        with self.inbox.lock:
            void = job.generation != self.inbox.generation or not self.supervisor.may_infer
            if not void and isinstance(outcome, InputError):
                self._hold(self.inputs.refuse(job, outcome))
                return 0.0
            if not void:
                self.inbox.accept()
            if void or self.inbox.fault(self._now(), time.monotonic_ns()):
                self._statistics.counts['discarded'] += 1
                return 0.0
            if isinstance(outcome, Exception):
                return self._fail(job, outcome)
            try:
                self._send(job, outcome)
            except PolicyOutputError as error:
                return self._fail(job, error)
            return 0.0

    def _send(self, job: Job, result: Result) -> None:
        values, prediction, now = self._values, result.prediction, self._now()
        chunk, clamped = limit_chunk(
            prediction.chunk, values.max_step_translation, values.max_step_rotation
        )
        stats = self.output.stats_message(job, result.observation_age, prediction, result.decode)
        if why := self._unfamiliar(result):
            self.supervisor.trouble = why
            self.output.hold(why, job.instruction, stats)
            return
        latency, lasts = now - job.stamp, chunk.period * (values.replan_steps or len(chunk))
        self._statistics.counts['overruns'] += latency > nanoseconds(lasts)
        delay = nanoseconds(values.start_delay)
        chunk, start = starting(chunk, values.anchor, job.stamp, now, delay)
        if not len(chunk):
            lasts = prediction.chunk.period * len(prediction.chunk)
            late = f'{seconds(latency)} after the images, a chunk lasts {lasts:.3f} s'
            self.supervisor.trouble = reason('too_late', '', late)
            self.output.hold(self.supervisor.trouble, job.instruction, stats)
            return
        if not self.output.send(chunk, start, job, stats, clamped):
            return
        published = time.monotonic_ns()
        self._gate.served(published * 1e-9)
        self.supervisor.sent()
        self._report.chunks = self.output.chunks
        self._statistics.sent(self.policy.manifest, job, result, clamped, published)
        self.output.send_kept_patches(prediction, job.stamp)
        sent = SentChunk(job, result, chunk, clamped, latency, published)
        for onlooker in self._onlookers:
            try:
                onlooker(sent)
            except Exception as error:  # who looks on must not stop the robot
                said = one_line(repr(error))
                self._log.error(f'an onlooker failed: {said}', throttle_duration_sec=5.0)

    def _unfamiliar(self, result: Result) -> str:
        """Return why an observation is too unlike the recorded ones; empty unless that is asked."""
        score, most = result.score, self._values.max_unfamiliarity
        if score is None or not most or score.total <= most:
            return ''
        return reason('unfamiliar', score.worst, f'{score.total:.2f}, max_unfamiliarity {most:g}')

    def _fail(self, job: Job, error: Exception) -> float:
        """Hold after a failed inference; return how long to wait before the next try [s]."""
        supervisor, bad_output = self.supervisor, isinstance(error, PolicyOutputError)
        pause = supervisor.failed(bad_output, self._values.max_failures)
        self._statistics.counts['failed'] += 1
        said = one_line(repr(error))
        self._log.error(f'inference failed ({supervisor.failures} in a row): {said}')
        self.inbox.invalidate()
        stats = self.output.stats_message(job)
        self.output.hold(supervisor.fault or supervisor.trouble, job.instruction, stats)
        return pause

    def _now(self) -> int:
        return self._node.get_clock().now().nanoseconds
