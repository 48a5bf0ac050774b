"""Measures a chunk of several engines on the same recorded observations, one chunk each in turn.

So a drift of the machine hits all alike. It is for methods whose time depends on what they see, or
on earlier chunks; ``engines`` measures a policy's engines with a number of tokens that is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightvla_ros.bench.load_watch import LoadWatch
from lightvla_ros.bench.timing import percentiles_ms, ratio_p50, take_turns
from lightvla_ros.engine.base import Engine
from lightvla_ros.machine import measured_with
from lightvla_ros.policy.observation import Observation
from lightvla_ros.policy.policy import Policy

WARM_UP = 5  # rounds


@dataclass(eq=False)
class Method:
    """A row of the measurement.

    :param policy: Runs ``engine``; several rows may share it.
    :param episodes: The observations of an episode each, in their order.
    :param start_episode: Called before the first observation of each.
    :param kept: Visual tokens of every chunk so far.
    """

    name: str
    policy: Policy
    engine: Engine
    episodes: Sequence[Sequence[Observation]]
    start_episode: Callable[[], None] = lambda: None
    kept: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._chunks = [
            (index == 0, observation)
            for episode in self.episodes
            for index, observation in enumerate(episode)
        ]

    def turn(self, number: int) -> float:
        """Return the seconds of encode and act for the next chunk."""
        first, observation = self._chunks[number % len(self._chunks)]
        if first:
            self.start_episode()
        self.policy.engine = self.engine
        prediction = self.policy.infer(observation)
        self.kept.append(sum(prediction.kept))
        return prediction.times.inference


def measure_methods(rows: Sequence[Method], rounds: int, threads: int) -> dict[str, Any]:
    """Measure, and return a document for JSON; ``ratio_p50`` is of the first row's median.

    :param threads: Threads that the engines were loaded with.
    """
    watch = LoadWatch(threads)
    found = take_turns({row: row.turn for row in rows}, rounds, WARM_UP)
    return {
        'machine': measured_with(threads),
        'load': watch.report(),
        'rounds': rounds,
        'rows': [
            {
                'name': row.name,
                'backend': row.engine.backend,
                'precision': row.engine.precision,
                'kept': round(sum(row.kept[WARM_UP:]) / rounds, 2),
                'chunk': percentiles_ms(found[row]),
                'ratio_p50': ratio_p50(found[row], found[rows[0]]),
            }
            for row in rows
        ],
    }
