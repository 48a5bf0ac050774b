"""``dataset_statistics.json``: the bounds of a dataset's numbers, checked where they stand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightvla_ros.errors import CheckpointError, one_line
from lightvla_ros.export.published_files import check_fields

COUNTS = {'action', 'proprio', 'num_trajectories', 'num_transitions'}
# Of these the bounds alone are used: LIBERO's policies are normalised by 1 % and 99 % quantiles.
NUMBERS = {'mask', 'max', 'mean', 'min', 'q01', 'q99', 'std'}
NO_RANGE = 1e-7  # where the 1e-8 of the published normalisation begins to matter


@dataclass(frozen=True)
class Bounds:
    """The bounds of one dataset.

    :param action: ``q01``, ``q99`` and ``mask``.
    :param proprio: ``q01`` and ``q99``.
    :param notes: A line for each dimension without a range.
    """

    action: dict[str, list]
    proprio: dict[str, list]
    notes: tuple[str, ...]


def choose_statistics(
    document: dict[str, Any], key: str | None, sizes: dict[str, int], path: Path
) -> Bounds:
    """Return the statistics of one dataset.

    :param key: Its name; None where there is one alone.
    :param sizes: Numbers of an ``action`` and of a ``proprio`` state.
    :param path: Of ``dataset_statistics.json``.
    :raises CheckpointError: When the dataset is missing, or its numbers cannot be.
    """
    if not document:
        raise CheckpointError(
            f'{path}: holds no dataset; take the file from the folder of the training run'
        )
    if document.keys() & {'action', 'proprio'}:
        raise CheckpointError(
            f'{path}: holds the statistics of one dataset without its name; put them under it: '
            '{"NAME": {"action": ..., "proprio": ...}}'
        )
    there = ', '.join(sorted(document))
    if key is None:
        if len(document) != 1:
            raise CheckpointError(f'{path}: several datasets; choose one by --unnorm-key: {there}')
        (key,) = document
    if key not in document:
        raise CheckpointError(f'{path}: no unnorm_key {key!r}; there are: {there}')
    dataset, name = document[key], one_line(key)
    if not isinstance(dataset, dict):
        raise CheckpointError(f'{path}: {name} is {one_line(repr(dataset))}, no statistics')
    check_fields(f'{path}: {name}.', dataset, {}, COUNTS)
    parts, notes = {}, []
    for part, size in sizes.items():
        where = f'{path}: {name}.{part}'
        parts[part] = _bounds(dataset.get(part), size, where)
        notes += _without_range(part, parts[part], where)
    if not all(parts['proprio']['mask']):
        raise CheckpointError(
            f'{path}: {name}.proprio.mask leaves numbers as they are, which is not understood: '
            'every state of the published policies is normalised'
        )
    del parts['proprio']['mask']
    return Bounds(**parts, notes=tuple(notes))


def _bounds(found: Any, size: int, where: str) -> dict[str, list]:
    found = {} if found is None else found
    if not isinstance(found, dict):
        raise CheckpointError(f'{where} is {one_line(repr(found))}, not statistics')
    check_fields(f'{where}.', found, {}, NUMBERS)
    bounds = {}
    for field in ('q01', 'q99'):
        values = found.get(field)
        if not isinstance(values, list) or len(values) != size or not all(map(_finite, values)):
            raise CheckpointError(f'{where}.{field}: {size} numbers are needed, all of them finite')
        bounds[field] = values
    mask = found.get('mask')
    mask = [True] * size if mask is None else mask
    if not isinstance(mask, list) or len(mask) != size or not all(type(m) is bool for m in mask):
        raise CheckpointError(f'{where}.mask: {size} times true or false are needed')
    for index, (low, high) in enumerate(zip(bounds['q01'], bounds['q99'], strict=True)):
        if mask[index] and low > high:
            raise CheckpointError(f'{where}: q01[{index}] = {low} is above q99[{index}] = {high}')
    return bounds | {'mask': mask}


def _without_range(part: str, bounds: dict[str, list], where: str) -> Iterator[str]:
    """Yield a line for each dimension that normalisation leaves nothing of.

    They are named and not refused: an axis that a dataset never moves, or a state that stood still,
    is legitimate, and the published code runs it in the same way.
    """
    for index, used in enumerate(bounds['mask']):
        low, high = bounds['q01'][index], bounds['q99'][index]
        if used and high - low < NO_RANGE:
            effect = {
                'action': f'the policy never commands anything but {low} there',
                'proprio': f'the policy sees -1 up to {low} and 1 above it, whatever the distance',
            }[part]
            yield f'{where}[{index}] has no range, q01 {low} and q99 {high}: {effect}'


def _finite(value: Any) -> bool:
    # no NaN, no infinity, no integer that is too long for a float
    return type(value) in (int, float) and abs(value) < 1e300
