"""Turns chunks into the target pose at a time, for one of two ways to execute a step.

- ``spring``: a step is a set-point relative to the pose that was measured when the step began
  (robosuite's OSC_POSE, LIBERO). The target stays there for the whole step.
- ``displacement``: a step is a motion to be made. It is added to the end of the step before, and
  the target moves along it evenly during the step.

A slower arm makes the same motion: at half the speed each step lasts twice as long, and the
set-point of a spring is half as far ahead, because the arm's speed is proportional to that lead.

Which step acts when is decided by ``chunk_schedule.py``: a newer chunk replaces an older one when
it starts, steps that are past are left out, a chunk is never started after its ``valid_until``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lightvla_ros.policy.actions import Chunk, axis_angle_from_quaternion
from lightvla_ros.policy.poses import Pose, difference, moved, shortened
from lightvla_ros.runtime.chunk_schedule import ChunkSchedule, TimedChunk
from lightvla_ros.runtime.reasons import reason
from lightvla_ros.runtime.seams import Seams

# How far a target of ``displacement`` may lead the commanded pose before its step begins [m], [rad]
LEAD = 0.03, 0.3
# How long the last target of a chunk stays when the next chunk is late [ns]. The arm comes to rest
# there; to hold at once, where it is, would break off every motion at the end of every chunk.
GRACE = 100_000_000


@dataclass(frozen=True)
class ReceivedChunk:
    """A chunk with what its message says about it.

    :param chunk: Without steps it is a hold.
    :param start: When its step 0 starts [ns of ROS time].
    :param valid_until: Latest time to start it [ns of ROS time].
    :param session: Of the policy node's activation that sent it.
    :param sequence: Number in its session.
    :param execution: ``spring`` or ``displacement``, by the message's ``reference``.
    :param observed: When the policy saw what it acts on [ns of ROS time].
    :param why: Why it is a hold.
    """

    chunk: Chunk
    start: int
    valid_until: int
    session: str
    sequence: int
    execution: str
    observed: int = 0
    why: str = ''


@dataclass(frozen=True)
class _Step:
    """The step that acts: where its motion begins, its translation and its rotation vector."""

    chunk: TimedChunk
    index: int
    base: Pose
    motion: np.ndarray

    @property
    def end(self) -> Pose:
        return moved(self.base, self.motion[:3], self.motion[3:])


class ChunkTimeline:
    """Takes chunks and returns the target pose at a time. Times are nanoseconds of ROS time.

    :param execution: ``spring`` or ``displacement``; chunks of the other kind are refused.
    :param blended: Number of steps, after a chunk has replaced another, that are a mean of both,
        with growing weight of the new one; 0 to change at once. The gripper is never blended.
    :param speed: How fast steps are executed, in (0, 1]; 1 is as fast as the chunks say.
    :ivar why: Why there is no target, as in ``reasons.py``.
    :ivar seams: How well the chunks have fitted together until now.
    """

    def __init__(self, execution: str, blended: int = 0, speed: float = 1.0) -> None:
        self.execution = execution
        self.blended = blended
        self.speed = speed
        self.seams = Seams()
        self.reset()

    def reset(self) -> None:
        """Forget all chunks, and follow the session of the next one."""
        self._session = ''
        self._sequence = -1
        self.forget(reason('no_target'))

    def forget(self, why: str) -> None:
        """Forget the chunks and all times, for instance after a clock jump; the session stays."""
        self._waits_since: int | None = None
        self._seen_after = 0  # what the policy saw before is not acted on
        self.hold(why)

    def hold(self, why: str) -> None:
        """Forget the chunks; the session stays."""
        self._schedule = ChunkSchedule()
        self._step: _Step | None = None
        self._replaced: TimedChunk | None = None
        self._seam = 0  # the first step after a replacement
        self.why = why

    @property
    def waits(self) -> bool:
        """Whether the chunk that acts waits."""
        return self._waits_since is not None

    def wait(self, now: int) -> None:
        """Let the chunk that acts wait: its steps do not pass, and no other one replaces it."""
        if self._waits_since is None:
            self._waits_since = now

    def go_on(self, now: int) -> None:
        """Go on with the step at which the chunk waits, if it does."""
        if self._waits_since is not None:
            self._schedule.delay(now - self._waits_since)
            self._step = None  # a spring's step begins at the pose that is measured then
            self._waits_since, self._seen_after = None, now

    def offer(self, received: ReceivedChunk, now: int) -> str:
        """Take a chunk.

        A hold is obeyed at once, whoever sent it. A chunk of another session or kind means that
        something else speaks on the topic, so it is a hold as well.

        :returns: Why the chunk was refused; empty if it was taken.
        """
        if not len(received.chunk):
            if received.session == self._session:
                self._sequence = max(self._sequence, received.sequence)
            self.hold(received.why or reason('no_target'))
            return ''
        if received.execution != self.execution:
            self.hold(reason('wrong_reference', '', f'chunks are for {received.execution}'))
            return self.why
        if self._session not in ('', received.session):
            self.hold(reason('wrong_session'))
            return self.why
        if received.session == self._session and received.sequence <= self._sequence:
            return reason('old_sequence', '', f'{received.sequence} after {self._sequence}')
        self._session, self._sequence = received.session, received.sequence
        if self.waits or received.observed < self._seen_after:
            return reason('hand_moves', '', 'the policy saw an arm that waits')
        if max(now, received.start) > received.valid_until:
            late = (now - received.valid_until) * 1e-9
            why = reason('too_late', '', f'{late:.3f} s after its valid_until')
            if self._step is None:
                self.why = why  # else the arm would rest without a cause that helps
            return why
        chunk = received.chunk
        turns = axis_angle_from_quaternion(chunk.rotations)
        lead = self.speed if self.execution == 'spring' else 1.0
        actions = np.column_stack([lead * chunk.translations, lead * turns, chunk.gripper])
        period = round(chunk.period * 1e9 / self.speed)
        self._schedule.offer(TimedChunk(actions, received.start, period, received.valid_until), now)
        return ''

    def target_at(self, now: int, measured: Pose, commanded: Pose) -> Pose | None:
        """Return where the end effector should be now; None for a hold, see :attr:`why`.

        :param measured: The measured pose.
        :param commanded: The pose that was commanded last.
        """
        if self.waits:
            return None
        found = self._schedule.step_at(now)
        if found is None:
            step = self._step
            if step is not None and 0 <= now - step.chunk.end < GRACE:
                return step.end
            if step is not None:
                self.seams.gaps += 1
                self.hold(reason('no_target'))
            return None
        chunk, index = found
        step, start = self._step, chunk.start + index * chunk.period
        if step is None or step.chunk is not chunk or step.index != index:
            replaced = step.chunk if step is not None and step.chunk is not chunk else None
            if replaced is not None:
                self._replaced, self._seam = replaced, index
            motion = self._motion(chunk, index, start)
            if replaced is not None:
                self.seams.add(_step_at(replaced, start), motion)
            base = measured
            if self.execution == 'displacement':
                base = commanded if step is None else _near(commanded, step.end)
            step = self._step = _Step(chunk, index, base, motion)
        if self.execution == 'spring':
            return step.end
        part = (now - start) / chunk.period
        return moved(step.base, part * step.motion[:3], part * step.motion[3:])

    @property
    def opening(self) -> float | None:
        """The gripper's opening, 0 closed to 1 open, of the step of the last target."""
        step = self._step
        return None if step is None else float(step.chunk.actions[step.index, 6])

    def _motion(self, chunk: TimedChunk, index: int, start: int) -> np.ndarray:
        """Return a step's translation and rotation vector, blended after a replacement."""
        own, old = chunk.actions[index, :6], self._replaced
        since = index - self._seam
        if old is None or since >= self.blended or old.period != chunk.period:
            return own
        before = (start - old.start) // old.period
        if not 0 <= before < len(old.actions):
            return own
        weight = (since + 1) / (self.blended + 1)
        return weight * own + (1 - weight) * old.actions[before, :6]


def _step_at(chunk: TimedChunk, time: int) -> np.ndarray:
    """Return a chunk's step at a time: the last one after its end, the first before its start."""
    index = (time - chunk.start) // chunk.period
    return chunk.actions[min(max(index, 0), len(chunk.actions) - 1), :6]


def _near(commanded: Pose, target: Pose) -> Pose:
    """Return a target, brought so near to the commanded pose that no debt of motion piles up."""
    shift, turn = difference(commanded, target)
    return moved(commanded, shortened(shift, LEAD[0]), shortened(turn, LEAD[1]))
