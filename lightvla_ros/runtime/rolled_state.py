"""The state when a chunk will start to act, for a policy that would otherwise see a past one.

A chunk acts later than its observation, and until then the arm goes on with the steps that the node
has published before. VLASH (arXiv 2512.01031) therefore gives the policy the state of that later
time: the measured state, moved by the steps in between. The images stay those of the observation.

Only the pose is moved. The fingers stay as measured: how far they go depends on the hand's speed
and on whether an object is between them, not on the steps, and a policy reads from them whether it
holds something, which must not be guessed.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from statistics import median

import numpy as np

from lightvla_ros.policy.actions import Chunk, axis_angle_from_quaternion
from lightvla_ros.policy.poses import Pose, moved
from lightvla_ros.policy.state import RobotState
from lightvla_ros.runtime.chunk_schedule import TimedChunk

# How far a step moves the arm, as a part of the step, by the policy's execution. A spring's
# set-point is ahead of the arm. With robosuite's stiffness of 150 /s^2, critical damping and a new
# set-point from the measured pose every 50 ms, the law says 0.265; LIBERO's arm was measured to
# move by 0.26 (docs/explanation/timing.md). It turns by 0.24 to 0.13, the less the faster.
REACHED = {'spring': 0.26, 'displacement': 1.0}
CHUNKS = 64  # of which the steps are known: 3.2 s if a chunk is published with every step
DELAYS = 9  # of which the median is expected, so that one slow inference changes little


class CommittedSteps:
    """The steps that were published and not withdrawn, and how late chunks act. Not thread-safe.

    All times are nanoseconds of ROS time.

    :param execution: ``spring`` or ``displacement``.
    :param speed: How fast the steps are executed, in (0, 1]: a step lasts its period / speed, and
        moves the arm as far as at full speed.
    """

    def __init__(self, execution: str, speed: float = 1.0) -> None:
        self._reached = REACHED[execution]
        self._speed = speed
        self._chunks: deque[TimedChunk] = deque(maxlen=CHUNKS)
        self._delays: deque[int] = deque(maxlen=DELAYS)

    def add(self, chunk: Chunk, start: int, observed: int) -> None:
        """Note a chunk that was published.

        :param start: When its step 0 starts; it replaces all older chunks then.
        :param observed: The stamp of its observation.
        """
        turns = axis_angle_from_quaternion(chunk.rotations)
        actions = np.column_stack([chunk.translations, turns])
        period = round(chunk.period * 1e9 / self._speed)
        self._chunks.append(TimedChunk(actions, start, period, valid_until=start))
        self._delays.append(start - observed)

    def clear(self) -> None:
        """Forget all steps, because a hold withdraws them; the delays stay."""
        self._chunks.clear()

    @property
    def delay(self) -> int:
        """The expected time from an observation to its chunk's start: the last ones' median."""
        return round(median(self._delays)) if self._delays else 0

    def rolled(self, state: RobotState, begin: int, end: int) -> RobotState:
        """Return a state with the pose of a later time.

        A step that acts for a part of the time counts in part. Where no step acts, the arm is
        expected to hold still.

        :param state: With a position and a quaternion.
        :param begin: When the pose was measured.
        :param end: The later time; not after ``begin`` returns the state itself.
        """
        if state.position is None or state.quaternion is None:
            return state
        pose = Pose(state.position, state.quaternion)
        for motion in self._motions(begin, end):
            pose = moved(pose, motion[:3], motion[3:])
        if pose.position is state.position:
            return state
        return replace(state, position=pose.position, quaternion=pose.quaternion)

    def _motions(self, begin: int, end: int) -> list[np.ndarray]:
        """Return the translation and rotation vector [6] of each step between two times."""
        found: list[np.ndarray] = []
        for chunk in reversed(self._chunks):
            own = []
            for index, action in enumerate(chunk.actions):
                starts = chunk.start + index * chunk.period
                acts = min(starts + chunk.period, end) - max(starts, begin)
                if acts > 0:
                    own.append(self._reached * acts / chunk.period * action)
            found = own + found
            end = min(end, chunk.start)  # until it starts, an older one acts
        return found
