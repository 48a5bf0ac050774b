"""A run's state in its folder, written atomically: it survives a crash of the machine.

Random numbers and the order of the frames follow from seed and step (``data.py``), so they are not
stored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lightvla_ros.errors import TrainError
from lightvla_ros.files import replace_whole

CHECKPOINT = 'checkpoint.pt'
FORM = 1
# Settings that may change when a run is resumed, because they do not affect the weights
FREE = {'log_every', 'checkpoint_every', 'threads', 'name'}


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a state of tensors and plain values; atomically replace an older one.

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

    :raises TrainError: When the file is missing, damaged or from another release.
    """
    if not path.is_file():
        raise TrainError(f'{path}: no such checkpoint')
    try:
        state = torch.load(path, map_location='cpu', weights_only=True)
    except Exception:  # of any type; PyTorch's message advises executing the file's contents
        raise TrainError(f'{path}: damaged, or not a checkpoint of a training run') from None
    if not isinstance(state, dict) or state.get('form') != FORM:
        raise TrainError(f'{path}: not a checkpoint of this release')
    return state


def check_unused(folder: Path) -> None:
    """Check that a folder may hold a new run.

    :raises TrainError: When it holds one already.
    """
    if (folder / CHECKPOINT).exists():
        raise TrainError(f'{folder}: holds a run; continue it with --resume, or give another --out')


def check_same(path: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    """Compare the configuration of a checkpoint with the present one.

    :raises TrainError: When a setting that affects the weights has changed.
    """
    for name in sorted(then.keys() | now.keys()):
        if name not in FREE and then.get(name) != now.get(name):
            raise TrainError(
                f'{path}: {name} was {then.get(name)!r}, is now {now.get(name)!r}; resume with the '
                'old value, or begin a new run with model.from'
            )


def check_data(path: Path, state: Mapping[str, Any], frames: int, mappings: Mapping) -> None:
    """Check that a run goes on with the frames, mappings and paraphrases that it began with.

    :param mappings: See ``Data``.
    :raises TrainError: When it does not.
    """
    if state['frames'] != frames:
        raise TrainError(
            f'{path}: was trained on {state["frames"]} frames, but now there are '
            f'{frames}; for other data begin a new run with model.from'
        )
    then = state['provenance']['data'].get('mappings', {})
    for name in sorted(then.keys() | mappings.keys()):
        contents = [json.dumps(each.get(name), sort_keys=True) for each in (then, mappings)]
        if contents[0] != contents[1]:
            raise TrainError(
                f'{path}: {name} has another content than when the run began; put it back, or '
                'begin a new run with model.from'
            )
