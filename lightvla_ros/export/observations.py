"""Recorded observations for golden answers, checked before the long steps of an export."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from lightvla_ros.errors import ExportError


def read_observations(path: Path, cameras: int, proprio_size: int) -> dict[str, np.ndarray]:
    """Read an ``.npz`` in the form of ``policy.observation.observations``.

    :param proprio_size: Length of the state; 0 for a policy without state.
    :raises ExportError: When the file has another form, or comes from another robot.
    """
    names = ('images', 'instruction', *(['proprio'] if proprio_size else []))
    try:
        with path.open('rb') as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in names}
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        # NumPy's own message advises executing the contents of the file
        raise ExportError(f'{path}: not an .npz file with {", ".join(names)}') from None
    images, count = arrays['images'], len(arrays['instruction'])
    wanted = {'images': f'uint8 [N, {cameras}, H, W, 3], N at least 1'}
    right = images.dtype == np.uint8 and images.ndim == 5 and count >= 1
    right = right and images.shape[:2] == (count, cameras) and images.shape[4] == 3
    if proprio_size:
        wanted['proprio'] = f'[N, {proprio_size}]'
        right = right and arrays['proprio'].shape == (count, proprio_size)
    if not right:
        found = ', '.join(f'{name} {each.dtype} {each.shape}' for name, each in arrays.items())
        needed = ', '.join(f'{name} {form}' for name, form in wanted.items())
        raise ExportError(f'{path}: holds {found}; expected {needed}')
    proprio = arrays.get('proprio')
    if proprio is not None and not np.isfinite(proprio).all():
        row = int(np.flatnonzero(~np.isfinite(proprio).all(axis=1))[0])
        raise ExportError(f'{path}: proprio[{row}] is not finite: {proprio[row]}')
    return arrays
