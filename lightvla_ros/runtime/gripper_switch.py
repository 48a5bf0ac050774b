"""When to open and to close the gripper: on a change of side only, and not too often.

A real hand takes most of a second from side to side and executes one command at a time, so the
openings of a chunk are never sent step by step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class GripperSwitch:
    """Turns openings, 0 (closed) to 1 (open), into commands to open or to close.

    :param close_below: An opening below this closes the gripper.
    :param open_above: An opening above this opens it; between both it stays as it is.
    :param interval: Shortest time between two commands [s].
    :ivar opened: The last command, True for open; None before the first.
    """

    close_below: float = 0.3
    open_above: float = 0.7
    interval: float = 0.3
    opened: bool | None = None
    _sent: float = -math.inf

    def command(self, now: float, opening: float | None) -> bool | None:
        """Return whether to open (True) or to close (False) now; None: send nothing.

        :param now: Seconds of a clock that never goes back.
        :param opening: Of the step that acts now, unblended; None during a hold.
        """
        if opening is None or now - self._sent < self.interval:
            return None
        wanted = opening > self.open_above
        if not wanted and not opening < self.close_below:  # between both, or NaN
            return None
        if wanted == self.opened:
            return None
        self.opened, self._sent = wanted, now
        return wanted
