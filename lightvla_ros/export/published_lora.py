"""Detects whether a checkpoint's LoRA adapter is merged into its weights already.

OpenVLA-OFT saves merged weights *and* the adapter in one folder. Merging it a second time gives a
policy with 0 % success (openvla-oft#137, #151), so the weights decide, not the file names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightvla_ros.errors import CheckpointError, one_line
from lightvla_ros.export.published_files import (
    check_fields,
    check_file,
    open_tensors,
    read_json,
    read_tensor,
    stored_shapes,
)

PREFIX = 'base_model.model.'
# Fields of peft's LoraConfig: the values of plain LoRA, and the fields that do not affect s B A
PLAIN = {
    'bias': ['none'],
    'fan_in_fan_out': [False],
    # other methods also change the base's weights
    'init_lora_weights': [True, False, 'gaussian', 'orthogonal', 'eva'],
    'peft_type': ['LORA'],
    'use_rslora': [True],
}
HARMLESS = {
    'auto_mapping', 'base_model_name_or_path', 'eva_config', 'exclude_modules', 'inference_mode',
    'layers_pattern', 'layers_to_transform', 'lora_alpha', 'lora_dropout', 'megatron_core',
    'peft_version', 'qalora_group_size', 'r', 'revision', 'runtime_config', 'target_modules',
    'task_type',
}  # fmt: skip


@dataclass(frozen=True)
class Adapter:
    """The deltas scale * B A, by the name of the weight to which each is added."""

    scale: float
    factors: dict[str, tuple[Tensor, Tensor]]  # A [r, in], B [out, r]

    def delta(self, name: str) -> Tensor:
        """Return the delta of a weight: float32 [out, in]."""
        a, b = self.factors[name]
        return self.scale * (b.float() @ a.float())

    def share_merged(self, weight: Callable[[str], Tensor]) -> float:
        """Return the share of the adapter in the weights: about 1 if merged, about 0 if not.

        W = W0 + c D. In this many dimensions W0 is nearly orthogonal to the delta D, so that the
        projection <W, D> / <D, D>, over all weights together, is c plus a little noise.

        :param weight: Returns a weight by its name.
        """
        along = length = 0.0
        for name in self.factors:
            delta = self.delta(name)
            along += float((weight(name).float() * delta).sum())
            length += float(delta.square().sum())
        return along / length if length else 1.0


def load_adapter(folder: Path) -> Adapter:
    """Read ``adapter_config.json`` and ``adapter_model.safetensors``, as peft writes them.

    :raises CheckpointError: When a file is missing, a key is unknown, or it is not plain LoRA.
    """
    path, weights = folder / 'adapter_config.json', folder / 'adapter_model.safetensors'
    for each in (path, weights):
        check_file(
            each, 'a LoRA adapter consists of adapter_config.json and adapter_model.safetensors'
        )
    config = read_json(path)
    # fields that newer versions of peft add are off unless they are set
    check_fields(f'{path}: ', config, PLAIN, HARMLESS, off=(None, False, {}, []))
    rank, alpha = _positive(config, 'r', path), _positive(config, 'lora_alpha', path)
    scale = alpha / (rank**0.5 if config.get('use_rslora') else rank)
    factors: dict[str, dict[str, Tensor]] = {}
    with open_tensors(weights) as file:
        for key in stored_shapes(file, weights):
            name, part = _target(key, weights)
            value = read_tensor(file, key, weights)
            if not torch.isfinite(value).all():
                raise CheckpointError(f'{weights}: {key} holds NaN or infinity; download it again')
            factors.setdefault(name, {})[part] = value
    if not factors:
        raise CheckpointError(
            f'{weights}: holds no LoRA factors; remove the folder if there is no adapter'
        )
    for name, parts in factors.items():
        shapes = {part: tuple(value.shape) for part, value in parts.items()}
        match shapes:
            case {'A': (first, _), 'B': (_, second)} if first == second == rank:
                continue
        raise CheckpointError(f'{weights}: {name}: lora_A and lora_B must have rank {rank}')
    return Adapter(scale, {name: (parts['A'], parts['B']) for name, parts in factors.items()})


def _positive(config: dict[str, Any], field: str, path: Path) -> int | float:
    value = config.get(field)
    if type(value) not in (int, float) or not 0 < value < 1e12:
        found = one_line(repr(value))
        raise CheckpointError(f'{path}: {field} is {found}, not a positive number')
    return value


def _target(key: str, path: Path) -> tuple[str, str]:
    for part in 'AB':
        end = f'.lora_{part}.weight'
        if key.startswith(PREFIX) and key.endswith(end):
            return key.removeprefix(PREFIX).removesuffix(end) + '.weight', part
    raise CheckpointError(f'{path}: {key} is not a LoRA factor of a linear layer')
