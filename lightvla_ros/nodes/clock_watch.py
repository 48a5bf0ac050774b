"""Detects that ROS time has jumped, simulated or not."""

from __future__ import annotations

import time
from collections.abc import Callable

from rclpy.clock import JumpThreshold, ROSClock
from rclpy.duration import Duration

STEP = 100_000_000  # ns; a clock that is slewed changes by 0.5 ms a second
LONGEST_LOOK = 5_000_000  # ns


class ClockWatch:
    """Reports jumps of simulated time, and steps of the system's clock.

    rclpy calls a jump callback only for simulated time; it does not report a step by NTP or a
    computer's sleep. So :meth:`look` compares ROS time with a steady clock.

    :param on_jump: Called with the jump [ns].
    """

    def __init__(self, clock: ROSClock, on_jump: Callable[[int], None]) -> None:
        self._clock = clock
        self._on_jump = on_jump
        self._ahead: int | None = None  # ROS time minus the steady clock [ns]
        # The handle must be kept: rclpy calls it even after it was garbage-collected.
        self._handle = clock.create_jump_callback(
            JumpThreshold(
                min_forward=Duration(seconds=1),
                min_backward=Duration(nanoseconds=-1),
                on_clock_change=True,
            ),
            post_callback=lambda jump: on_jump(jump.delta.nanoseconds),
        )

    def look(self) -> None:
        """Report a step of the system's clock since the last call. Call it at 50 Hz."""
        jump = self._step()
        if jump:
            self._on_jump(jump)

    def _step(self) -> int:
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
