"""What a policy node commanded: the steps of its recorded chunks, in runs between two holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lightvla_ros.demonstrations.bag_messages import stamp_of
from lightvla_ros.policy.actions import axis_angle_from_quaternion

CHUNK = 'lightvla_ros/msg/ActionChunk'
LABELS = ('x', 'y', 'z', 'rx', 'ry', 'rz', 'gripper')


@dataclass(frozen=True)
class Series:
    """A topic's numbers over time.

    :param stamps: int64 [M] ns, ascending.
    :param values: float64 [M, n].
    :param posed: Whether columns 3 to 6 are a quaternion x y z w.
    """

    stamps: np.ndarray
    values: np.ndarray
    labels: tuple[str, ...]
    posed: bool


@dataclass(frozen=True)
class Run:
    """Steps that acted one after the other, without a hold between them.

    :param stamps: int64 [M] ns: when each step began.
    :param values: float64 [M, 7]: translation [m], rotation vector [rad], opening 0 to 1.
    :param period: Of a step [ns].
    """

    topic: str
    instruction: str
    stamps: np.ndarray
    values: np.ndarray
    period: int

    def series(self) -> Series:
        """Return the commands as any other topic's numbers."""
        return Series(self.stamps, self.values, LABELS, False)


def runs_in(topic: str, chunks: Iterable[Any]) -> Iterator[Run]:
    """Yield the runs of chunks (lightvla_ros/msg/ActionChunk), in the order of their publishing.

    A newer chunk replaces the steps of an older one that begin with it or later, as the chunk's
    contract says. A hold, a pause, another instruction or another session ends a run.
    """
    stamps: list[int] = []
    values: list[list[float]] = []
    kind: tuple[str, str, int] | None = None

    def ended() -> Iterator[Run]:
        if len(stamps) > 1:
            found = np.array(stamps, np.int64), np.array(values, np.float64)
            yield Run(topic, kind[1], *found, kind[2])
        stamps.clear()
        values.clear()

    for chunk in chunks:
        begin, period = stamp_of(chunk.header.stamp), stamp_of(chunk.period)
        while stamps and stamps[-1] >= begin and chunk.session_id == kind[0]:
            stamps.pop()
            values.pop()
        own = chunk.session_id, chunk.instruction, period
        pause = bool(stamps) and begin > stamps[-1] + 1.5 * period
        if not chunk.steps or pause or own != kind:
            yield from ended()
        kind = own
        for index, (step, opening) in enumerate(zip(chunk.steps, chunk.gripper, strict=True)):
            move, turn = step.translation, step.rotation
            vector = axis_angle_from_quaternion(np.array([[turn.x, turn.y, turn.z, turn.w]]))[0]
            stamps.append(begin + index * period)
            values.append([move.x, move.y, move.z, *vector.tolist(), float(opening)])
    yield from ended()
