"""What is written down about one episode."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from lightvla_ros.sim.episode import EpisodeSpec


@dataclass(frozen=True)
class EpisodeRecord:
    """One episode. With an ``error`` nothing was measured, and ``success`` is None.

    :param steps: Steps after settling, up to success or the limit.
    :param seconds: On the clock, all included but building the environment.
    :param end_state: Digest of all joint positions at the end: whether two runs ended the same.
    :param kept: Kept visual tokens of every chunk, by camera.
    :param latency_ms: Of every chunk: preprocessing, encode and act.
    """

    suite: str
    task: int
    init_state: int
    seed: int
    instruction: str = ''
    success: bool | None = None
    steps: int = 0
    seconds: float = 0.0
    error: str = ''
    renderer: str = ''
    end_state: str = ''
    kept: dict[str, list[int]] = field(default_factory=dict)
    latency_ms: list[float] = field(default_factory=list)

    @property
    def spec(self) -> EpisodeSpec:
        """Which episode it is."""
        return EpisodeSpec(self.suite, self.task, self.init_state, self.seed)

    @property
    def kept_totals(self) -> list[int]:
        """Kept visual tokens of every chunk, all cameras together."""
        return [sum(counts) for counts in zip(*self.kept.values(), strict=True)]

    def as_dict(self) -> dict[str, Any]:
        """All fields and the mean of the kept tokens, for JSON."""
        totals = self.kept_totals
        mean = round(sum(totals) / len(totals), 3) if totals else None
        return {**asdict(self), 'kept_mean': mean}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> EpisodeRecord:
        """Read what :meth:`as_dict` wrote.

        :raises TypeError: When it is something else.
        """
        return cls(**{key: value for key, value in fields.items() if key != 'kept_mean'})


def failed_record(spec: EpisodeSpec, error: str) -> EpisodeRecord:
    """Return the record of an episode that could not be run to its end."""
    return EpisodeRecord(**vars(spec), error=error)


def state_digest(positions: np.ndarray) -> str:
    """Return 16 hex digits that differ when any bit of the joint positions does."""
    return hashlib.sha256(np.ascontiguousarray(positions).tobytes()).hexdigest()[:16]
