"""Decides whether the robot may move, by the rule of ``docs/explanation/safety-rule.md``.

Input faults clear themselves. An engine fault lasts until a reset or a new activation.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from lightvla_ros.runtime.reasons import kind, reason

FIRST_PAUSE = 0.1  # after a failed inference [s]; it doubles with each failure in a row
LONGEST_PAUSE = 2.0


class State(IntEnum):
    """State of a policy node, numbered as in ``VlaStatus``."""

    UNCONFIGURED = 0
    INACTIVE = 1
    WAITING = 2
    RUNNING = 3
    HOLDING = 4
    FAULT = 5


@dataclass(frozen=True)
class Situation:
    """What is known at one moment; a reason is empty when it does not apply.

    :param clock: Whether ROS time has begun.
    :param inputs: The reason why there is no observation.
    :param uninstructed: The reason why there is no instruction.
    :param moving: Whether the last chunk had steps.
    :param busy: How long the running inference has taken so far [s].
    :param alive: Whether the inference thread runs.
    """

    clock: bool = True
    inputs: str = ''
    uninstructed: str = ''
    moving: bool = False
    busy: float = 0.0
    alive: bool = True


@dataclass
class Supervisor:
    """Decides whether the robot may move, from earlier failures and the present situation.

    Not thread-safe: callers hold the inbox's lock.

    :param active: Whether the node is active.
    :param paused: Whether a user paused the node; only a user resumes it.
    :param fault: The reason of a fault; empty without one.
    :param trouble: Why the last chunk was a hold; empty once a chunk with steps is sent.
    :param failures: Number of failed inferences in a row.
    """

    active: bool = False
    paused: bool = False
    fault: str = ''
    trouble: str = ''
    failures: int = 0

    @property
    def may_infer(self) -> bool:
        """Whether an inference may begin, and whether its result may be acted on."""
        return self.active and not self.paused and not self.fault

    def judge(self, situation: Situation, max_inference_time: float) -> tuple[State, str]:
        """Return the state and its reason; a fault that is found lasts.

        :param max_inference_time: An inference that takes longer is a fault [s].
        """
        found = _fault_of_the_engine(situation, max_inference_time)
        if found and not self.fault:
            self.fault = found
        if self.fault:
            return State.FAULT, self.fault
        if self.paused:
            return State.HOLDING, reason('paused')
        if not situation.clock:
            return State.WAITING, reason('no_clock')
        if situation.inputs:
            stopped = situation.moving or self.trouble
            return State.HOLDING if stopped else State.WAITING, situation.inputs
        if situation.uninstructed:
            return State.WAITING, situation.uninstructed
        if self.trouble:
            return State.HOLDING, self.trouble
        if situation.moving:
            return State.RUNNING, ''
        return State.WAITING, reason('waiting_for_chunk')

    def sent(self) -> None:
        """Note that a chunk with steps was sent."""
        self.failures = 0
        self.trouble = ''

    def failed(self, bad_output: bool, max_failures: int) -> float:
        """Note that an inference failed; too many in a row are a fault.

        :param bad_output: Whether the engine answered, but with an output that must not be used.
        :returns: How long to wait before the next inference [s].
        """
        self.failures += 1
        self.trouble = reason('bad_output' if bad_output else 'engine_error')
        if self.failures >= max_failures:
            self.fault = reason('fault', kind(self.trouble))
        return min(FIRST_PAUSE * 2 ** (self.failures - 1), LONGEST_PAUSE)

    def publish_failed(self, what: str) -> None:
        """Note that a message could not be published, which is a fault."""
        if self.active and not self.fault:
            self.fault = reason('fault', f'publish_{what}')


def _fault_of_the_engine(situation: Situation, max_inference_time: float) -> str:
    if situation.busy > max_inference_time:
        late = f'{situation.busy:.3f} s, max_inference_time {max_inference_time:.3f} s'
        return reason('inference_timeout', '', late)
    if not situation.alive:  # a programming error ended the thread; its traceback is on stderr
        return reason('fault', 'inference_thread')
    return ''
