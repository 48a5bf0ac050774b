"""How the simulated robot executes chunks: in lockstep with the policy, or by the clock."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from lightvla_ros.actions import Chunk, osc_from_chunk
from lightvla_ros.msg import ActionChunk
from lightvla_ros.nodes.conversions import MessageError, chunk_from_message, stamp_ns
from lightvla_ros.sim.libero_env import ROTATION_SCALE, TRANSLATION_SCALE

PERIOD = 50_000_000  # ns, LIBERO's control period


class EpisodeAbortedError(Exception):
    """An episode that cannot be finished: an error, not a failure of the policy."""


@dataclass
class EpisodeCounts:
    """What happened to chunks in an episode."""

    chunks: int = 0  # executed, in part at least
    holds: int = 0  # steps without motion for want of a chunk, or empty chunks in lockstep
    ignored: int = 0  # named another observation (lockstep) or came after valid_until (wall clock)
    refused: int = 0  # not fit to be executed
    overruns: int = 0  # control periods that took longer than they should (wall clock)
    resent: int = 0  # observations sent again (lockstep)
    actions: list[np.ndarray] = field(default_factory=list)

    def as_dict(self) -> dict[str, int]:
        """Return the numbers, for JSON."""
        return {key: value for key, value in vars(self).items() if key != 'actions'}


class Robot(Protocol):
    """What a mode needs of the bridge."""

    now: int  # simulated time [ns]

    def observe(self) -> None:
        """Publish images and state, stamped now."""

    def step(self, action: np.ndarray) -> bool:
        """Apply an action, advance the clock; return whether the episode is finished."""

    def hold_action(self) -> np.ndarray:
        """Return the action that holds still."""

    def wait_for_chunks(self, timeout: float) -> list[ActionChunk]:
        """Return the chunks that have come; wait up to ``timeout`` seconds for one.

        :raises EpisodeAbortedError: When the node is to stop or to reset.
        """

    def complain(self, text: str) -> None:
        """Log a warning, not too often."""


def run_lockstep(
    robot: Robot, camera_every: int, resend_period: float, chunk_timeout: float
) -> EpisodeCounts:
    """Send an observation, wait for the chunk that names it, execute that; again, to the end.

    Time stands still while the policy thinks, so the outcome does not depend on the machine.

    :raises EpisodeAbortedError: When no chunk comes within ``chunk_timeout`` seconds.
    """
    counts = EpisodeCounts()
    while True:
        robot.observe()
        chunk = _awaited_chunk(robot, counts, resend_period, chunk_timeout)
        counts.chunks += 1
        actions = osc_from_chunk(chunk, TRANSLATION_SCALE, ROTATION_SCALE)
        for index, action in enumerate(actions, start=1):
            counts.actions.append(action)
            if robot.step(action):
                return counts
            if index % camera_every == 0 and index < len(actions):
                robot.observe()


def _awaited_chunk(
    robot: Robot, counts: EpisodeCounts, resend_period: float, chunk_timeout: float
) -> Chunk:
    started = sent = time.monotonic()
    last = 'no chunk at all'
    while True:
        for message in robot.wait_for_chunks(resend_period):
            if stamp_ns(message.stats.observation_stamp) != robot.now:
                counts.ignored += 1
                continue
            try:
                chunk = chunk_from_message(message)
            except MessageError as error:
                counts.refused += 1
                last = f'a chunk that was refused: {error}'
                robot.complain(last)
                continue
            if len(chunk):
                return chunk
            counts.holds += 1
            last = f'a hold: {message.reason}'
        waited = time.monotonic() - started
        if waited > chunk_timeout:
            raise EpisodeAbortedError(
                f'no chunk for the observation within {chunk_timeout:g} s; the last answer was '
                f'{last}'
            )
        if time.monotonic() - sent >= resend_period:
            # A best-effort subscriber may have lost it, and an instruction may have come since.
            sent = time.monotonic()
            counts.resent += 1
            robot.complain(f'waiting {waited:.0f} s for a chunk; {last}')
            robot.observe()


def run_wall_clock(robot: Robot, camera_every: int, real_time_factor: float) -> EpisodeCounts:
    """Run at the control rate whatever the policy does; hold still without a valid chunk."""
    counts = EpisodeCounts()
    schedule = ChunkSchedule()
    period = PERIOD * 1e-9 / real_time_factor
    due = time.monotonic()
    steps = 0
    while True:
        if steps % camera_every == 0:
            robot.observe()
        for message in robot.wait_for_chunks(0.0):
            try:
                counts.ignored += not schedule.offer(message, robot.now)
            except MessageError as error:
                counts.refused += 1
                schedule.clear()
                robot.complain(f'chunk refused: {error}')
        action = schedule.action_at(robot.now)
        counts.chunks += schedule.started()
        if action is None:
            counts.holds += 1
            action = robot.hold_action()
        counts.actions.append(action)
        if robot.step(action):
            return counts
        steps += 1
        due += period
        behind = time.monotonic() - due
        if behind > 0:
            counts.overruns += 1
            due += behind  # time is not caught up: a robot's clock does not run faster either
        else:
            time.sleep(-behind)


class ChunkSchedule:
    """Which step of which chunk acts now, by the rules of ``ActionChunk.msg``."""

    def __init__(self) -> None:
        self._active: tuple[int, int, np.ndarray] | None = None
        self._next: tuple[int, int, np.ndarray] | None = None
        self._started = 0

    def offer(self, message: ActionChunk, now: int) -> bool:
        """Take a chunk; return False when it may not be started any more.

        :raises MessageError: When it must not be executed at all.
        """
        chunk = chunk_from_message(message)
        if not len(chunk):
            self.clear()
            return True
        if now > stamp_ns(message.valid_until):
            return False
        actions = osc_from_chunk(chunk, TRANSLATION_SCALE, ROTATION_SCALE)
        self._next = (stamp_ns(message.header.stamp), stamp_ns(message.period), actions)
        return True

    def clear(self) -> None:
        """Hold from now on."""
        self._active = self._next = None

    def action_at(self, now: int) -> np.ndarray | None:
        """Return the OSC action [7] of the step that acts now; None when there is none."""
        if self._next is not None and self._next[0] <= now:
            self._active, self._next = self._next, None
            self._started += 1
        if self._active is None:
            return None
        start, period, actions = self._active
        index = (now - start) // period
        return actions[index] if index < len(actions) else None

    def started(self) -> int:
        """Return how many chunks were started since the last call."""
        started, self._started = self._started, 0
        return started
