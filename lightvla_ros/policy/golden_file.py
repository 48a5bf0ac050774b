"""Reads and checks a policy folder's ``golden.npz``: observations and PyTorch's outputs."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from lightvla_ros.contract import ACTION_SIZE, Manifest
from lightvla_ros.errors import ContractError


def read_golden(policy_dir: Path, manifest: Manifest) -> dict[str, np.ndarray]:
    """Return the arrays, in the form that ``observation.observations`` describes.

    :raises ContractError: When the folder has none, or the file is damaged or of another policy.
    """
    if manifest.golden is None:
        raise ContractError(f'{policy_dir}: holds no golden observations; export the policy again')
    path = Path(policy_dir) / manifest.golden.file
    cameras, steps = len(manifest.cameras), manifest.action.chunk_length
    wanted = {
        'images': ('u', f'uint8 [N, {cameras}, H, W, 3]', (None, cameras, None, None, 3)),
        'instruction': ('U', 'text [N]', (None,)),
        'kept': ('b', 'bool [N, Lv]', (None, manifest.tokens.buckets[-1])),
        'actions': ('f', f'float [N, {steps}, 7]', (None, steps, ACTION_SIZE)),
    }
    if manifest.proprio is not None:
        wanted['proprio'] = ('f', 'float [N, S]', (None, manifest.proprio.size))
    try:
        with path.open('rb') as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in wanted}
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        raise ContractError(
            f'{path}: not an .npz with {", ".join(wanted)}; export the policy again'
        ) from None
    count = arrays['instruction'].shape[:1]
    for name, (kind, form, shape) in wanted.items():
        found = arrays[name]
        fits = found.dtype.kind == kind and found.ndim == len(shape) and found.shape[:1] == count
        fits = fits and all(
            size in (None, real) for size, real in zip(shape, found.shape, strict=True)
        )
        if not fits or not found.size:
            raise ContractError(
                f'{path}: {name} is {found.dtype} {found.shape}; this policy needs {form} with N '
                'at least 1; export it again'
            )
        if kind == 'f' and not np.isfinite(found).all():
            raise ContractError(f'{path}: {name} holds NaN or infinity; export the policy again')
    return arrays
