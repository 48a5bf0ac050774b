"""What an inspection found, as text and as a document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lightvla_ros.demonstrations.inspection.figures import (
    ACTION_UNITS,
    ACTIONS,
    BINS,
    STATE_UNITS,
    STATES,
    Inspection,
)

INSTRUCTIONS = 10  # that are listed
BAR = 40  # characters of the longest bar


def report(found: Inspection, notes: Sequence[str], doubts: Sequence[str]) -> str:
    """Return the text of an inspection."""
    return '\n'.join(_lines(found, notes, doubts))


def document(found: Inspection, notes: Sequence[str], doubts: Sequence[str]) -> dict[str, Any]:
    """Return an inspection's figures in plain values."""
    return {
        'episodes': len(found.episodes),
        'steps': len(found.actions),
        'rows_with_pictures': len(found.states),
        'rows_without_pictures': sum(found.missing),
        'rate': 1 / found.robot.control_period,
        'execution': found.robot.action.execution,
        'instructions': dict(Counter(each.instruction for each in found.episodes)),
        'state': _statistics(STATES, found.states),
        'action': _statistics(ACTIONS, found.actions),
        'still': found.still,
        'agreement': found.agreement,
        'by_lag': {str(lag): value for lag, value in found.by_lag.items()},
        'gain': found.gain,
        'left_out': list(notes),
        'doubts': list(doubts),
    }


def _lines(found: Inspection, notes: Sequence[str], doubts: Sequence[str]) -> Iterator[str]:
    episodes, first = found.episodes, found.episodes[0]
    lengths = [episode.steps for episode in episodes]
    seconds = len(found.actions) * found.robot.control_period
    yield (
        f'{len(episodes)} episodes of {min(lengths)} to {max(lengths)} steps, {seconds:.1f} s at '
        f'{1 / found.robot.control_period:g} Hz; {len(found.states)} rows with pictures of '
        f'{first.image_size[1]} x {first.image_size[0]} px'
    )
    orders = Counter(episode.order for episode in episodes)
    shown = ' and '.join(f'{order} ({count})' for order, count in orders.items())
    execution = found.robot.action.execution
    yield f'a step is a {execution}; observations were made {shown} their actions'
    instructions = Counter(episode.instruction for episode in episodes)
    for text, count in instructions.most_common(INSTRUCTIONS):
        yield f'  {count:4d}  "{text}"'
    if len(instructions) > INSTRUCTIONS:
        yield f'        and {len(instructions) - INSTRUCTIONS} more instructions'
    yield ''
    yield f'{"":18s}{"min":>10s}{"1 %":>10s}{"mean":>10s}{"99 %":>10s}{"max":>10s}{"std":>10s}'
    yield from _table('state', STATES, STATE_UNITS, found.states)
    yield from _table('action', ACTIONS, ACTION_UNITS, found.actions)
    yield ''
    yield 'gripper command (0 open, 1 closed)'
    yield from _histogram(found.actions[:, 6])
    yield ''
    yield f'steps that do nothing: {found.still:.1%}'
    yield f'rows without pictures, within episodes: {sum(found.missing)}'
    lags = ', '.join(f'{lag:+d}: {value:.2f}' for lag, value in found.by_lag.items())
    yield (
        f'motion and steps: {found.gain:.3g} m for each metre, likeness {found.agreement:.2f}; of '
        f'their changes, by lag in rows, {lags}'
    )
    yield ''
    for note in notes:
        yield f'left out or assumed: {note}'
    for doubt in doubts:
        yield f'WARNING: {doubt}'
    if not doubts:
        yield 'nothing looks wrong in the figures; look at the pictures'


def _table(
    what: str, names: Sequence[str], units: Sequence[str], values: np.ndarray
) -> Iterator[str]:
    found = _statistics(names, values)
    for name, unit in zip(names, units, strict=True):
        if name in found:
            numbers = ''.join(f'{value:10.4f}' for value in found[name].values())
            yield f'{what} {name:11s}{numbers}  {unit}'


def _statistics(names: Sequence[str], values: np.ndarray) -> dict[str, dict[str, float]]:
    rows = {
        'min': values.min(axis=0),
        'q01': np.quantile(values, 0.01, axis=0),
        'mean': values.mean(axis=0),
        'q99': np.quantile(values, 0.99, axis=0),
        'max': values.max(axis=0),
        'std': values.std(axis=0),
    }
    return {
        name: {figure: float(row[index]) for figure, row in rows.items()}
        for index, name in enumerate(names)
        if not np.isnan(values[:, index]).all()  # fingers that the contract has not
    }


def _histogram(values: np.ndarray) -> Iterator[str]:
    counts, edges = np.histogram(values, BINS)
    for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True):
        if count:
            bar = '#' * max(1, round(BAR * count / counts.max()))
            yield f'  {low:8.3f} to {high:8.3f}  {count:7d}  {bar}'
