"""How the simulated robot runs when the chunk executor commands it: in lockstep, or by the clock.

Simulated time advances in ticks of 10 ms. In each, the robot publishes its pose, its controller
takes the newest command, and the physics run. The chunks are not executed here; in lockstep the
robot waits for them, so that the policy's latency has no effect.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lightvla_ros.contract.libero import PERIOD
from lightvla_ros.nodes.bridge_modes import (
    EpisodeAbortedError,
    EpisodeCounts,
    Pace,
    Robot,
    await_chunk,
)

TICK = 10_000_000  # ns
RESEND = 0.2  # s without a command after which a pose is sent again


@dataclass(frozen=True)
class CameraLink:
    """How observations reach the policy; the same seed draws the same.

    :param delay: From an observation to its publication [ns of simulated time].
    :param jitter: Longest time that is added to it, drawn evenly for each [ns].
    :param loss: Share of the observations that never come, 0 to 1.
    """

    delay: int = 0
    jitter: int = 0
    loss: float = 0.0

    def delays(self, seed: int) -> Iterator[int | None]:
        """Yield the delay of one observation after the other [ns]; None when it is lost."""
        rng = np.random.default_rng(seed)
        while True:
            lost, more = rng.random(2)
            yield None if lost < self.loss else self.delay + round(self.jitter * more)


class TwinRobot(Robot, Protocol):
    """What a mode needs from the bridge, beside what :class:`Robot` has."""

    def report(self) -> None:
        """Publish the measured pose and the fingers, stamped now."""

    def wait_for_command(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds for a command stamped now; return whether it has come.

        :raises EpisodeAbortedError: When the node must stop or reset.
        """

    def tick(self) -> bool:
        """Run controller and physics for a tick, advance the clock; return whether it is over."""

    def observe_later(self, due: int) -> None:
        """Render now, and publish when simulated time is ``due`` [ns], stamped now."""


def run_twin_in_lockstep(
    robot: TwinRobot,
    counts: EpisodeCounts,
    camera_every: int,
    resend_period: float,
    chunk_timeout: float,
) -> None:
    """Repeat until the episode ends: a chunk for every ``camera_every`` steps, a command a tick.

    :raises EpisodeAbortedError: When no chunk or no command comes within ``chunk_timeout`` seconds.
    """
    begin = robot.now
    while True:
        if (robot.now - begin) % (camera_every * PERIOD) == 0:
            robot.observe()
            await_chunk(robot, counts, resend_period, chunk_timeout)
            counts.chunks += 1
            robot.wait_for_command(RESEND)  # the executor's answer to the observation's pose
        started = time.monotonic()
        robot.report()
        while not robot.wait_for_command(RESEND):
            if time.monotonic() - started > chunk_timeout:
                raise EpisodeAbortedError(
                    f'no command of the chunk executor within {chunk_timeout:g} s'
                )
            counts.resent += 1
            robot.complain('waiting for a command; is the chunk executor active?')
            robot.report()
        if robot.tick():
            return


def run_twin_by_the_clock(
    robot: TwinRobot,
    counts: EpisodeCounts,
    camera_every: int,
    real_time_factor: float,
    delays: Iterator[int | None],
) -> None:
    """Run by the clock, whatever comes.

    :param delays: Of the observations, see :meth:`CameraLink.delays`.
    """
    begin, pace = robot.now, Pace(TICK * 1e-9 / real_time_factor)
    while True:
        if (robot.now - begin) % (camera_every * PERIOD) == 0:
            delay = next(delays)
            if delay is not None:
                robot.observe_later(robot.now + delay)
        robot.report()
        for message in robot.wait_for_chunks(0.0):
            counts.chunks += bool(message.steps)
            counts.holds += not message.steps
        if robot.tick():
            return
        counts.overruns += pace.wait()
