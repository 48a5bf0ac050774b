"""Detects other load on the machine during a measurement."""

from __future__ import annotations

import os
from typing import Any

BUSY = 0.5  # load average above which somebody else is at work
WARNING = 'the machine was not idle: ratios of medians may stand, times and tails do not'


class LoadWatch:
    """Load averages before and after a measurement.

    :param threads: Number of threads that the measurement itself runs.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._before = os.getloadavg()[0]

    def report(self) -> dict[str, Any]:
        """Return the load ``before`` and ``after``, and a ``warning`` or None."""
        after = os.getloadavg()[0]
        busy = not_idle(self._before, after, self._threads)
        return {
            'before': round(self._before, 2),
            'after': round(after, 2),
            'warning': WARNING if busy else None,
        }


def not_idle(before: float, after: float, threads: int) -> bool:
    """Whether load averages show other load than the ``threads`` of the measurement."""
    return before > BUSY or after > threads + BUSY
