"""Reads and checks the bounds of a dataset in ``dataset_statistics.json``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightvla_ros.errors import CheckpointError, one_line
from lightvla_ros.export.published_files import check_fields

COUNTS = {'action', 'proprio', 'num_trajectories', 'num_transitions'}
# Only mask, q01 and q99 are used: LIBERO's policies are normalised by 1 % and 99 % quantiles.
NUMBERS = {'mask', 'max', 'mean', 'min', 'q01', 'q99', 'std'}
NO_RANGE = 1e-7  # below this range the 1e-8 in the published normalisation matters


@dataclass(frozen=True)
class Bounds:
    """The bounds of one dataset.

    :param action: ``q01``, ``q99`` and ``mask``.
    :param proprio: ``q01`` and ``q99``.
    :param notes: One line for each dimension without a range.
    """

    action: dict[str, list]
    proprio: dict[str, list]
    notes: tuple[str, ...]


def choose_statistics(
    document: dict[str, Any], key: str | None, sizes: dict[str, int], path: Path
) -> Bounds:
    """Return the statistics of one dataset.

    :param key: Name of the dataset; None if the file has only one.
    :param sizes: Number of dimensions of ``action`` and of ``proprio``.
    :param path: Path of ``dataset_statistics.json``.
    :raises CheckpointError: When the dataset is missing, or its numbers are invalid.
    """
    if not document:
        raise CheckpointError(
            f'{path}: holds no dataset; take the file from the folder of the training run'
        )
    if document.keys() & {'action', 'proprio'}:
        raise CheckpointError(
            f'{path}: holds statistics without the name of a dataset; put them under a name: '
            '{"NAME": {"action": ..., "proprio": ...}}'
        )
    there = ', '.join(sorted(document))
    if key is None:
        if len(document) != 1:
            raise CheckpointError(
                f'{path}: holds several datasets; choose one with --unnorm-key: {there}'
            )
        (key,) = document
    if key not in document:
        raise CheckpointError(f'{path}: has no dataset {key!r} (unnorm_key); it has: {there}')
    dataset, name = document[key], one_line(key)
    if not isinstance(dataset, dict):
        raise CheckpointError(f'{path}: {name} is {one_line(repr(dataset))}, not statistics')
    check_fields(f'{path}: {name}.', dataset, {}, COUNTS)
    parts, notes = {}, []
    for part, size in sizes.items():
        where = f'{path}: {name}.{part}'
        parts[part] = _bounds(dataset.get(part), size, where)
        notes += _without_range(part, parts[part], where)
    if not all(parts['proprio']['mask']):
        raise CheckpointError(
            f'{path}: {name}.proprio.mask turns off normalisation, which is not supported: the '
            'published policies normalise every number of the state'
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
            raise CheckpointError(f'{where}.{field}: must be a list of {size} finite numbers')
        bounds[field] = values
    mask = found.get('mask')
    mask = [True] * size if mask is None else mask
    if not isinstance(mask, list) or len(mask) != size or not all(type(m) is bool for m in mask):
        raise CheckpointError(f'{where}.mask: must be a list of {size} values true or false')
    for index, (low, high) in enumerate(zip(bounds['q01'], bounds['q99'], strict=True)):
        if mask[index] and low > high:
            raise CheckpointError(f'{where}: q01[{index}] = {low} is above q99[{index}] = {high}')
    return bounds | {'mask': mask}


def _without_range(part: str, bounds: dict[str, list], where: str) -> Iterator[str]:
    """Yield a line for each dimension without a range.

    They are reported but not refused: a dataset may never move an axis or change a state, and the
    published code treats such dimensions in the same way.
    """
    for index, used in enumerate(bounds['mask']):
        low, high = bounds['q01'][index], bounds['q99'][index]
        if used and high - low < NO_RANGE:
            effect = {
                'action': f'the policy always commands {low} there',
                'proprio': f'the policy sees -1 for values up to {low} and 1 for larger values',
            }[part]
            yield f'{where}[{index}] has no range, q01 {low} and q99 {high}: {effect}'


def _finite(value: Any) -> bool:
    # excludes NaN, infinity and integers too large for a float
    return type(value) in (int, float) and abs(value) < 1e300
