"""Detects that the system's clock was set."""

from __future__ import annotations

import time

from rclpy.clock import ROSClock

STEP = 100_000_000  # ns; a clock that is slewed changes by 0.5 ms a second
LONGEST_LOOK = 5_000_000  # ns


class ClockWatch:
    """Compares ROS time with a steady clock, unless ROS time is simulated.

    rclpy calls a jump callback only for simulated time; it does not report a step by NTP or a
    computer's sleep.
    """

    def __init__(self, clock: ROSClock) -> None:
        self._clock = clock
        self._ahead: int | None = None  # ROS time minus the steady clock [ns]

    def jump(self) -> int:
        """Return by how much the clock was set since the last call [ns]; 0 when it was not."""
        if self._clock.ros_time_is_active:
            self._ahead = None
            return 0
        before = time.monotonic_ns()
        now = self._clock.now().nanoseconds
        after = time.monotonic_ns()
        if after - before > LONGEST_LOOK:  # this thread was interrupted in between
            return 0
        last, self._ahead = self._ahead, now - after
        step = 0 if last is None else self._ahead - last
        return step if abs(step) > STEP else 0
