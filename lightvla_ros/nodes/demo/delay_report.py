"""What `lightvla bench delays` measures at each point, as records, figures and a table. No ROS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from lightvla_ros.evaluate.rates import rate_of
from lightvla_ros.sim.episode import EpisodeSpec
from lightvla_ros.summary_statistics import percentiles

# Parameters of the policy node and of the executor
VARIANTS: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    'plain': ({}, {}),
    'roll_state': ({'roll_state': True}, {}),
    'blended': ({}, {'blended': 2}),
    'both': ({'roll_state': True}, {'blended': 2}),
}


@dataclass(frozen=True)
class Point:
    """One setting.

    :param delay_ms: How much later than its stamp an observation is published [ms].
    :param horizon: Steps between two observations, and between two chunks.
    :param variant: A name of :data:`VARIANTS`.
    :param jitter_ms: At most so much more, drawn for each observation [ms].
    :param loss: Share of the observations that are lost.
    """

    delay_ms: int
    horizon: int
    variant: str
    jitter_ms: int = 0
    loss: float = 0.0

    def __str__(self) -> str:
        more = f'{self.delay_ms} ms' + (f' + {self.jitter_ms}' if self.jitter_ms else '')
        lost = f', {self.loss:.0%} lost' if self.loss else ''
        return f'{more}{lost}, every {self.horizon} steps, {self.variant}'


@dataclass(frozen=True)
class DelaySpec:
    """Identifies an episode at a point."""

    point: Point
    episode: EpisodeSpec


@dataclass(frozen=True)
class DelayRecord:
    """One episode at a point. With an ``error`` nothing was measured, and ``success`` is None.

    :param seconds: Wall-clock time, without building the environment.
    :param overruns: Ticks of 10 ms that took longer than they should, mostly those that render.
        Simulated time waits for them.
    :param real_time_factor: Simulated time by wall-clock time, as it came out.
    :param jumps: Distance [m] and angle [rad] of the target's jump at each seam.
    :param gaps: How often the steps ran out before the next chunk started.
    :param late_ms: Of each chunk: from its observation's stamp to its start, in simulated time.
    """

    delay_ms: int
    horizon: int
    variant: str
    suite: str
    task: int
    init_state: int
    seed: int
    success: bool | None = None
    steps: int = 0
    seconds: float = 0.0
    error: str = ''
    overruns: int = 0
    real_time_factor: float = 0.0
    gaps: int = 0
    jumps: list[list[float]] = field(default_factory=list)
    late_ms: list[float] = field(default_factory=list)
    jitter_ms: int = 0
    loss: float = 0.0

    @classmethod
    def of(cls, spec: DelaySpec, **fields: Any) -> DelayRecord:
        """Make the record of an episode."""
        return cls(**vars(spec.point), **vars(spec.episode), **fields)

    @property
    def spec(self) -> DelaySpec:
        """What identifies the record."""
        return DelaySpec(
            Point(self.delay_ms, self.horizon, self.variant, self.jitter_ms, self.loss),
            EpisodeSpec(self.suite, self.task, self.init_state, self.seed),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return all fields, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> DelayRecord:
        """Make a record from the fields of :meth:`as_dict`.

        :raises TypeError: When there are other fields.
        """
        return cls(**fields)


def figures(records: Sequence[DelayRecord]) -> list[dict[str, Any]]:
    """Return the figures of each point, in the order of delay, horizon and variant.

    Jumps are in mm and degrees; the steps are those of solved episodes.
    """
    points = {record.spec.point for record in records}
    order = list(VARIANTS)
    ordered = sorted(
        points, key=lambda p: (p.delay_ms, p.jitter_ms, p.loss, -p.horizon, order.index(p.variant))
    )
    return [_figures(point, [r for r in records if r.spec.point == point]) for point in ordered]


def _figures(point: Point, records: list[DelayRecord]) -> dict[str, Any]:
    valid = [record for record in records if not record.error]
    solved = [record.steps for record in valid if record.success]
    jumps = np.array([jump for record in valid for jump in record.jumps]).reshape(-1, 2)
    late = [each for record in valid for each in record.late_ms]
    ranks = ('p50', 'p95')
    return {
        **vars(point),
        'episodes': len(valid),
        'successes': len(solved),
        **rate_of(len(solved), len(valid)),
        'errors': len(records) - len(valid),
        'steps': round(float(np.mean(solved)), 1) if solved else None,
        'seams': len(jumps),
        'seam_mm': percentiles(1e3 * jumps[:, 0], ranks, digits=2) if len(jumps) else None,
        'seam_deg': percentiles(np.degrees(jumps[:, 1]), ranks, 2) if len(jumps) else None,
        'gaps': sum(record.gaps for record in valid),
        'chunks': len(late),
        'late_ms': percentiles(late, ranks, digits=1) if late else None,
        'overruns': sum(record.overruns for record in valid),
        'ticks': 5 * sum(record.steps for record in valid),
        'real_time_factor': min((r.real_time_factor for r in valid), default=None),
    }


def table(points: Sequence[dict[str, Any]]) -> str:
    """Return the figures as text."""
    lines = [
        f'{"delay":>6}{"jitter":>7}{"lost":>6}{"steps":>6} {"variant":11}'
        f'{"solved":>8}{"95 %":>12}{"steps":>7}'
        f'{"seam mm p50/p95":>17}{"deg p50/p95":>14}{"gaps":>6}{"late ms p50/p95":>17}'
        f'{"overruns":>10}'
    ]
    for row in points:
        interval = '' if row['rate'] is None else f'{row["low"]:.0%} to {row["high"]:.0%}'
        lines.append(
            f'{row["delay_ms"]:6}{row["jitter_ms"]:7}{row["loss"]:6.0%}{row["horizon"]:6} '
            f'{row["variant"]:11}'
            f'{row["successes"]:4}/{row["episodes"]:<3}{interval:>12}{row["steps"] or "-":>7}'
            f'{_pair(row["seam_mm"]):>17}{_pair(row["seam_deg"]):>14}{row["gaps"]:6}'
            f'{_pair(row["late_ms"]):>17}{row["overruns"]:6}/{row["ticks"]}'
        )
    return '\n'.join(lines)


def _pair(values: dict[str, float] | None) -> str:
    return '-' if values is None else f'{values["p50"]:.1f} / {values["p95"]:.1f}'
