"""A run's state in its folder: whole at any time, also when the machine stops while it is written.

Random numbers and the order of the frames follow from seed and step (``data.py``), so the step
stands for both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lightvla_ros.errors import TrainError
from lightvla_ros.files import replace_whole

CHECKPOINT = 'checkpoint.pt'
FORM = 1
# What may change when a run goes on: nothing that decides which weights come out
FREE = {'log_every', 'checkpoint_every', 'threads', 'name'}


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a state of tensors and plain values, replacing an older one at once.

    :raises WriteError: When the disk is full; the older one stays.
    """
    with replace_whole(path, _tensor_bytes(state)) as part:
        torch.save({'form': FORM, **state}, part)


def _tensor_bytes(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, dict):
        value = list(value.values())
    return sum(map(_tensor_bytes, value)) if isinstance(value, list | tuple) else 0


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a state back.

    :raises TrainError: When there is none, or it is damaged or of another release.
    """
    if not path.is_file():
        raise TrainError(f'{path}: no such checkpoint')
    try:
        state = torch.load(path, map_location='cpu', weights_only=True)
    except Exception:  # a damaged pickle raises anything, and PyTorch's text advises to execute it
        raise TrainError(f'{path}: damaged, or no checkpoint of a training run') from None
    if not isinstance(state, dict) or state.get('form') != FORM:
        raise TrainError(f'{path}: not a checkpoint of this release')
    return state


def check_same(path: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    """Compare the configuration of a checkpoint with the present one.

    :raises TrainError: When one that decides about weights has changed.
    """
    for name in sorted(then.keys() | now.keys()):
        if name not in FREE and then.get(name) != now.get(name):
            raise TrainError(
                f'{path}: {name} was {then.get(name)!r}, is now {now.get(name)!r}; go on with the '
                'old one, or begin a new run with model.from'
            )
