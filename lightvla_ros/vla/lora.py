"""LoRA adapters beside a checkpoint: are they merged already, and if not, merge them.

OpenVLA-OFT saves merged weights *and* the adapter in one folder. Merging it a second time gives a
policy with 0 % success (openvla-oft#137, #151), so the weights are asked, not the file names.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from lightvla_ros.vla.errors import CheckpointError

PREFIX = 'base_model.model.'


@dataclass(frozen=True)
class Adapter:
    """The deltas scale * B A, by the name of the weight they are added to."""

    scale: float
    factors: dict[str, tuple[Tensor, Tensor]]  # A [r, in], B [out, r]

    def delta(self, name: str) -> Tensor:
        """Return what is added to a weight: float32 [out, in]."""
        a, b = self.factors[name]
        return self.scale * (b.float() @ a.float())

    def share_merged(self, weight: Callable[[str], Tensor]) -> float:
        """Tell how much of the adapter the weights hold: about 1 when merged, about 0 when not.

        W = W0 + c D; W0 is nearly orthogonal to the delta D in so many dimensions, so that the
        projection <W, D> / <D, D>, over all weights together, is c and a little noise.

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

    :raises CheckpointError: On a missing file, a variant that is not plain LoRA, or a stray key.
    """
    path, weights = folder / 'adapter_config.json', folder / 'adapter_model.safetensors'
    for each in (path, weights):
        if not each.is_file():
            raise CheckpointError(f'{each}: is missing; a LoRA adapter consists of both')
    try:
        config = json.loads(path.read_text())
        rank, alpha = int(config['r']), float(config['lora_alpha'])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f'{path}: not an adapter configuration: {error!r}') from None
    for option in ('use_dora', 'rank_pattern', 'alpha_pattern', 'modules_to_save'):
        if config.get(option):
            raise CheckpointError(f'{path}: {option} is set; only plain LoRA can be merged')
    scale = alpha / (rank**0.5 if config.get('use_rslora') else rank)
    factors: dict[str, dict[str, Tensor]] = {}
    try:
        with safe_open(weights, framework='pt') as file:
            for key in file.keys():  # noqa: SIM118 (not a dict)
                name, part = _target(key, weights)
                factors.setdefault(name, {})[part] = file.get_tensor(key)
    except SafetensorError as error:
        raise CheckpointError(f'{weights}: damaged: {error}') from None
    for name, parts in factors.items():
        if parts.keys() != {'A', 'B'} or {parts['A'].shape[0], parts['B'].shape[1]} != {rank}:
            raise CheckpointError(f'{weights}: {name}: lora_A and lora_B of rank {rank} are needed')
    return Adapter(scale, {name: (parts['A'], parts['B']) for name, parts in factors.items()})


def _target(key: str, path: Path) -> tuple[str, str]:
    for part in 'AB':
        end = f'.lora_{part}.weight'
        if key.startswith(PREFIX) and key.endswith(end):
            return key.removeprefix(PREFIX).removesuffix(end) + '.weight', part
    raise CheckpointError(f'{path}: {key} is not a LoRA factor of a linear layer')


def merged(weight: Tensor, delta: Tensor) -> Tensor:
    """Add a delta in fp32 and return the weight's own type."""
    return (weight.float() + delta).to(weight.dtype)
