"""How the simulated robot executes chunks: in lockstep with the policy, or by the clock."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from lightvla_ros.contract.libero import PERIOD, ROTATION_SCALE, TRANSLATION_SCALE
from lightvla_ros.errors import LightVLAError, quoted
from lightvla_ros.msg import ActionChunk
from lightvla_ros.nodes.conversions import MessageError, chunk_from_message, stamp_ns
from lightvla_ros.policy.actions import osc_from_chunk
from lightvla_ros.runtime.chunk_schedule import ChunkSchedule, TimedChunk


class EpisodeAbortedError(LightVLAError):
    """An episode that could not be finished; it counts as an error, not as the policy's failure."""


@dataclass
class EpisodeCounts:
    """How many chunks of an episode were executed, ignored or refused."""

    chunks: int = 0  # executed at least in part
    holds: int = 0  # empty chunks (lockstep), or steps without a chunk to execute (wall clock)
    ignored: int = 0  # for another observation (lockstep) or after valid_until (wall clock)
    refused: int = 0  # could not be executed
    overruns: int = 0  # control periods that took too long (wall clock)
    resent: int = 0  # observations sent again (lockstep)
    actions: list[np.ndarray] = field(default_factory=list)

    def as_dict(self) -> dict[str, int]:
        """Return the numbers, for JSON."""
        return {key: value for key, value in vars(self).items() if key != 'actions'}


class Robot(Protocol):
    """What a mode needs from the bridge."""

    now: int  # simulated time [ns]
    base_frame: str  # the frame in which chunks must be

    def observe(self) -> None:
        """Publish images and state, stamped now."""

    def step(self, action: np.ndarray) -> bool:
        """Apply an action, advance the clock; return whether the episode is finished."""

    def hold_action(self) -> np.ndarray:
        """Return the action that holds still."""

    def wait_for_chunks(self, timeout: float) -> list[ActionChunk]:
        """Return the chunks that have arrived; wait up to ``timeout`` seconds for one.

        :raises EpisodeAbortedError: When the node must stop or reset.
        """

    def complain(self, text: str) -> None:
        """Log a warning, at a limited rate."""


def executable(message: ActionChunk, base_frame: str) -> np.ndarray:
    """Convert a chunk to OSC_POSE actions [N, 7]; N is 0 for a hold.

    :raises MessageError: When it is damaged, or when this robot's controller cannot execute it.
    """
    chunk = chunk_from_message(message)
    if len(chunk):
        if message.reference != ActionChunk.REFERENCE_MEASURED_POSE:
            raise MessageError(
                f'reference {message.reference}: OSC_POSE adds deltas to the measured pose alone'
            )
        if stamp_ns(message.period) != PERIOD:
            raise MessageError(f'period of {chunk.period:g} s; LIBERO runs at {PERIOD * 1e-9:g} s')
        if message.header.frame_id != base_frame:
            frame = quoted(message.header.frame_id)
            raise MessageError(f'frame is {frame}, base_frame {base_frame!r}')
    return osc_from_chunk(chunk, TRANSLATION_SCALE, ROTATION_SCALE)


def run_lockstep(
    robot: Robot,
    counts: EpisodeCounts,
    camera_every: int,
    resend_period: float,
    chunk_timeout: float,
) -> None:
    """Repeat until the episode ends: send an observation, wait for its chunk, execute the chunk.

    Simulated time stops during inference, so the outcome does not depend on the machine.

    :param counts: Updated while the episode runs, so that it is also valid after an abort.
    :raises EpisodeAbortedError: When no chunk comes within ``chunk_timeout`` seconds.
    """
    while True:
        robot.observe()
        actions = await_chunk(robot, counts, resend_period, chunk_timeout)
        counts.chunks += 1
        for index, action in enumerate(actions, start=1):
            counts.actions.append(action)
            if robot.step(action):
                return
            if index % camera_every == 0 and index < len(actions):
                robot.observe()


def await_chunk(
    robot: Robot, counts: EpisodeCounts, resend_period: float, chunk_timeout: float
) -> np.ndarray:
    """Wait for the chunk of the observation that was sent; return its OSC_POSE actions [N, 7].

    :param counts: Of the episode, to be updated.
    :raises EpisodeAbortedError: When none comes within ``chunk_timeout`` seconds.
    """
    started = sent = time.monotonic()
    last = 'no chunk at all'
    while True:
        for message in robot.wait_for_chunks(resend_period):
            if stamp_ns(message.stats.observation_stamp) != robot.now:
                counts.ignored += 1
                continue
            try:
                actions = executable(message, robot.base_frame)
            except MessageError as error:
                counts.refused += 1
                last = f'a chunk that was refused: {error}'
                robot.complain(last)
                continue
            if len(actions):
                return actions
            counts.holds += 1
            last = f'a hold: {quoted(message.reason)}'
        waited = time.monotonic() - started
        if waited > chunk_timeout:
            raise EpisodeAbortedError(
                f'no chunk for the observation within {chunk_timeout:g} s; the last answer was '
                f'{last}'
            )
        if time.monotonic() - sent >= resend_period:
            # A best-effort subscriber may have lost the observation, or the instruction came later.
            sent = time.monotonic()
            counts.resent += 1
            robot.complain(f'waiting {waited:.0f} s for a chunk; {last}')
            robot.observe()


class Pace:
    """Keeps a loop at one round per period [s of real time]."""

    def __init__(self, period: float) -> None:
        self._period = period
        self._due = time.monotonic()

    def wait(self) -> bool:
        """Wait for the end of the round; return whether it came too late.

        Lost time is not made up: a real robot's clock cannot run faster either.
        """
        self._due += self._period
        behind = time.monotonic() - self._due
        if behind > 0:
            self._due += behind
            return True
        time.sleep(-behind)
        return False


def run_wall_clock(
    robot: Robot, counts: EpisodeCounts, camera_every: int, real_time_factor: float
) -> None:
    """Run at the control rate whatever the policy does; hold still without a valid chunk.

    :param counts: Updated while the episode runs, so that it is also valid after an abort.
    """
    schedule = ChunkSchedule()
    pace = Pace(PERIOD * 1e-9 / real_time_factor)
    steps = 0
    while True:
        if steps % camera_every == 0:
            robot.observe()
        for message in robot.wait_for_chunks(0.0):
            _offer(schedule, message, robot, counts)
        action = schedule.action_at(robot.now)
        counts.chunks, counts.ignored = schedule.started, schedule.late
        if action is None:
            counts.holds += 1
            action = robot.hold_action()
        counts.actions.append(action)
        if robot.step(action):
            return
        steps += 1
        counts.overruns += pace.wait()


def _offer(
    schedule: ChunkSchedule, message: ActionChunk, robot: Robot, counts: EpisodeCounts
) -> None:
    try:
        actions = executable(message, robot.base_frame)
    except MessageError as error:
        counts.refused += 1
        schedule.clear()
        robot.complain(f'chunk refused: {error}')
        return
    if len(actions):
        start, valid_until = stamp_ns(message.header.stamp), stamp_ns(message.valid_until)
        schedule.offer(TimedChunk(actions, start, PERIOD, valid_until), robot.now)
    else:
        schedule.clear()
