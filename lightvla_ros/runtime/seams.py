"""How well consecutive chunks fit together: the jumps of the target where one replaces another."""

from __future__ import annotations

from collections import deque

import numpy as np

from lightvla_ros.policy.poses import length, quaternion_of, turn_between
from lightvla_ros.summary_statistics import percentiles

SEAMS = 10_000  # the newest ones that are kept


class Seams:
    """The jumps at the seams between chunks, and the gaps between them.

    :ivar gaps: How often the steps of a chunk ran out before the next one started.
    """

    def __init__(self) -> None:
        self.gaps = 0
        self._jumps: deque[tuple[float, float]] = deque(maxlen=SEAMS)
        self._new: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=SEAMS)

    @property
    def jumps(self) -> deque[tuple[float, float]]:
        """Distance [m] and angle [rad] between the targets of both chunks at the newest seams."""
        while self._new:
            before, after = self._new.popleft()
            turn = turn_between(quaternion_of(before[3:]), quaternion_of(after[3:]))
            self._jumps.append((length(after[:3] - before[:3]), length(turn)))
        return self._jumps

    def add(self, before: np.ndarray, after: np.ndarray) -> None:
        """Note a seam; its size is computed later, because the command must not wait for it.

        :param before: Translation and rotation vector [6] by which the replaced chunk would move
            the arm in the step that begins at the seam, or in its last one if it has ended.
        :param after: Those by which the arm is moved instead.
        """
        self._new.append((before, after))

    def summary(self) -> dict[str, float]:
        """Return the numbers of seams and gaps, and p50 and p95 of the jumps in mm and degrees."""
        jumps = self.jumps
        found: dict[str, float] = {'seams': len(jumps), 'seam_gaps': self.gaps}
        if jumps:
            shifts, turns = np.array(jumps).T
            for unit, values in (('mm', 1e3 * shifts), ('deg', np.degrees(turns))):
                ranks = percentiles(values, ('p50', 'p95'), digits=3)
                found |= {f'seam_{rank}_{unit}': value for rank, value in ranks.items()}
        return found
