"""Measures how well the alarm tells planted faults, and episodes that fail from those that do not.

Its scores are computed from stored observations, without simulator.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np

from lightvla_ros.errors import EvaluationError
from lightvla_ros.evaluate.planted_faults import Fault, planted_faults
from lightvla_ros.evaluate.ranking import auroc, auroc_interval
from lightvla_ros.machine import machine
from lightvla_ros.policy.familiarity import Alarm, Score
from lightvla_ros.policy.observation import Observation
from lightvla_ros.policy.policy import Policy

FIRST = 10  # observations of an episode; those that fail last longer, so both are cut there
LEVELS = (1.0, 1.5, 2.0, 3.0)  # scores whose exceedance is counted
TOTAL = 'score'
TIMED = 100  # scores


@dataclass(frozen=True)
class SeenEpisode:
    """What a policy saw in an episode, one observation for each chunk.

    :param success: Whether it was solved; None if that was not stored.
    """

    observations: tuple[Observation, ...]
    success: bool | None


def measure(
    policy: Policy, alarm: Alarm, episodes: Sequence[SeenEpisode], say: Callable[[str], None]
) -> dict[str, Any]:
    """Score all episodes as they are and with each fault.

    :param say: Called with a line on what is done next.
    :returns: The document, for JSON and :func:`table`.
    :raises EvaluationError: When there are no episodes.
    """
    if not episodes:
        raise EvaluationError('there are no episodes; give files of `lightvla alarm observe`')
    say(f'{len(episodes)} episodes as they are')
    good = [_scores(policy, alarm, each) for each in episodes]
    milliseconds = _milliseconds(policy, alarm, episodes[0].observations[0])
    texts = tuple(sorted({o.instruction for each in episodes for o in each.observations}))
    rows = []
    for name, fault in planted_faults(policy.manifest.cameras[0].name, texts).items():
        say(name)
        bad = [_scores(policy, alarm, each, fault) for each in episodes]
        rows.append({'fault': name, **_compared(bad, good)})
    return {
        'policy': policy.manifest.fingerprint,
        'backend': policy.engine.backend,
        'machine': machine(),
        'date': str(date.today()),
        'calibrated_on': policy.manifest.familiarity.observations,
        'episodes': len(episodes),
        'observations': sum(map(len, good)),
        'milliseconds': milliseconds,
        'as_recorded': _exceeded(good),
        'planted': rows,
        'failed': _failed(good, [each.success for each in episodes]),
    }


def _scores(
    policy: Policy, alarm: Alarm, episode: SeenEpisode, fault: Fault = lambda seen: seen
) -> list[Score]:
    seen = map(fault, episode.observations)
    return [alarm.judge(each, policy.infer(each)) for each in seen]


def _milliseconds(policy: Policy, alarm: Alarm, seen: Observation) -> float:
    """Return how long one score takes beyond its inference, p50."""
    prediction, found = policy.infer(seen), []
    for _ in range(TIMED):
        started = time.perf_counter()
        alarm.judge(seen, prediction)
        found.append(time.perf_counter() - started)
    return round(1e3 * float(np.median(found)), 3)


def _compared(bad: list[list[Score]], good: list[list[Score]]) -> dict[str, Any]:
    """Compare episodes, observation by observation."""
    high, low = _columns(bad), _columns(good)
    areas = {
        name: round(auroc(np.concatenate(high[name]), np.concatenate(low[name])), 3)
        for name in high
    }
    interval = auroc_interval(high[TOTAL], low[TOTAL])
    return {
        'auroc': areas[TOTAL],
        'interval': [round(each, 3) for each in interval],
        'by_part': {name: area for name, area in areas.items() if name != TOTAL},
        'exceeded': _exceeded(bad),
    }


def _columns(scored: list[list[Score]]) -> dict[str, list[np.ndarray]]:
    """Return the score and the parts by name: for each episode, [N]."""
    names = scored[0][0].parts
    return {TOTAL: [np.array([score.total for score in each]) for each in scored]} | {
        name: [np.array([score.parts[name] for score in each]) for each in scored] for name in names
    }


def _exceeded(scored: list[list[Score]]) -> dict[str, float]:
    """Return the share of observations above each level."""
    totals = np.array([score.total for each in scored for score in each])
    return {f'{level:g}': round(float((totals > level).mean()), 4) for level in LEVELS}


def _failed(good: list[list[Score]], success: list[bool | None]) -> dict[str, Any]:
    """Compare episodes that failed with those that were solved; an episode is one number."""
    failed = [scores for scores, solved in zip(good, success, strict=True) if solved is False]
    solved = [scores for scores, solved in zip(good, success, strict=True) if solved]
    document: dict[str, Any] = {'failed': len(failed), 'solved': len(solved)}
    if not failed or not solved:
        return document
    for name, value in {
        f'largest of the first {FIRST}': lambda column: column[:FIRST].max(),
        f'mean of the first {FIRST}': lambda column: column[:FIRST].mean(),
        'mean of the whole episode': lambda column: column.mean(),
    }.items():
        document[name] = _compared_episodes(_columns(failed), _columns(solved), value)
    return document


def _compared_episodes(high: dict, low: dict, value: Any) -> dict[str, Any]:
    ends = {
        name: [[np.array([value(column)]) for column in each[name]] for each in (high, low)]
        for name in high
    }
    areas = {
        name: round(auroc(np.concatenate(bad), np.concatenate(good)), 3)
        for name, (bad, good) in ends.items()
    }
    return {
        'auroc': areas[TOTAL],
        'interval': [round(each, 3) for each in auroc_interval(*ends[TOTAL])],
        'by_part': {name: area for name, area in areas.items() if name != TOTAL},
    }


def table(document: dict[str, Any]) -> str:
    """Return the tables of a document of :func:`measure`."""
    levels = [f'{level:g}' for level in LEVELS]
    above = ' '.join(f'{"> " + level:>7}' for level in levels)
    lines = [
        f'{document["episodes"]} episodes, {document["observations"]} observations; calibrated on '
        f'{document["calibrated_on"]}; a score takes {document["milliseconds"]:.2f} ms',
        f'{"":38} {"AUROC":>5}  95 %         {above}  best part',
        f'{"as recorded":38} {"":5}  {"":12} {_shares(document["as_recorded"])}',
    ]
    for row in document['planted']:
        lines.append(f'{row["fault"]:38} {_area(row)} {_shares(row["exceeded"])}  {_best(row)}')
    ends = document['failed']
    lines.append(f'\n{ends["failed"]} episodes failed, {ends["solved"]} were solved')
    for name, row in ends.items():
        if isinstance(row, dict):
            lines.append(f'{name:38} {_area(row)} {"":31}  {_best(row)}')
    return '\n'.join(lines)


def _area(row: dict[str, Any]) -> str:
    low, high = row['interval']
    return f'{row["auroc"]:5.2f}  {f"{low:.2f} to {high:.2f}":12}'


def _shares(shares: dict[str, float]) -> str:
    return ' '.join(f'{share:7.1%}' for share in shares.values())


def _best(row: dict[str, Any]) -> str:
    name = max(row['by_part'], key=row['by_part'].__getitem__)
    return f'{name} {row["by_part"][name]:.2f}'
