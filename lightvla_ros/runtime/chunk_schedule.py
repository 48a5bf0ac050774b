"""When a chunk starts and which of its steps acts now, by the rules of ``ActionChunk.msg``."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lightvla_ros.policy.actions import Chunk


def starting(
    chunk: Chunk, anchor: str, observed: int, now: int, delay: int = 0
) -> tuple[Chunk, int]:
    """Return the part of a chunk that is not past yet, and when its first step starts.

    All times are nanoseconds of ROS time.

    :param anchor: ``observation``: step 0 starts at the time of the images, and steps that are
        already past are left out, possibly all. ``publish``: step 0 starts ``delay`` from now.
    :param observed: The time of the images.
    """
    if anchor != 'observation':
        return chunk, now + delay
    period = round(chunk.period * 1e9)
    past = min(-(-(now - observed) // period), len(chunk))
    return chunk.without_head(past), observed + past * period


@dataclass(frozen=True)
class TimedChunk:
    """A chunk's steps with its times, in nanoseconds of ROS time.

    :param actions: [N, ...], one row per step.
    :param start: When step 0 starts.
    :param period: Of one step.
    :param valid_until: Latest time to start the chunk.
    """

    actions: np.ndarray
    start: int
    period: int
    valid_until: int

    @property
    def end(self) -> int:
        """When its last step ends."""
        return self.start + len(self.actions) * self.period


class ChunkSchedule:
    """Stores chunks and returns the step that acts at a given time; times must not go back.

    :ivar started: Number of chunks that were started.
    :ivar late: Number of chunks that could have started only after their ``valid_until``.
    """

    def __init__(self) -> None:
        self.started = 0
        self.late = 0
        self._active: TimedChunk | None = None
        self._next: TimedChunk | None = None

    def offer(self, chunk: TimedChunk, now: int) -> None:
        """Take a chunk; it replaces all older ones when it starts, which may be at once."""
        if chunk.start > now:
            self._next = chunk
        else:
            self._start(chunk, now)

    def clear(self) -> None:
        """Hold from now on."""
        self._active = self._next = None

    def delay(self, by: int) -> None:
        """Let the chunk that acts, act later by this much [ns]."""
        if self._active is not None:
            self._active = replace(self._active, start=self._active.start + by)

    def step_at(self, now: int) -> tuple[TimedChunk, int] | None:
        """Return the chunk and the index of its step that acts now; None means: hold still."""
        waiting = self._next
        if waiting is not None and waiting.start <= now:
            self._next = None
            self._start(waiting, now)
        if self._active is None:
            return None
        index = (now - self._active.start) // self._active.period
        return (self._active, index) if 0 <= index < len(self._active.actions) else None

    def action_at(self, now: int) -> np.ndarray | None:
        """Return the step that acts now; None means: hold still."""
        found = self.step_at(now)
        return None if found is None else found[0].actions[found[1]]

    def _start(self, chunk: TimedChunk, now: int) -> None:
        if now > chunk.valid_until:
            self.late += 1
            return
        self.started += 1
        self._active, self._next = chunk, None
