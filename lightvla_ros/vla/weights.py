"""The model of a policy folder, with its weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from lightvla_ros.contract import Manifest, load_manifest
from lightvla_ros.errors import CheckpointError, ContractError, one_line
from lightvla_ros.vla.config import VLAConfig
from lightvla_ros.vla.model import LightVLA

NUMBERS = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}

Shapes = dict[str, tuple[int, ...]]
TAKEN_NUMBERS = {torch.float64, torch.float32, torch.float16, torch.bfloat16}


class StoredWeights(Mapping[str, Tensor]):
    """The weights of a policy folder by name; each is read from its file on access."""

    def __init__(self, policy_dir: Path, files: Sequence[str]) -> None:
        self._file_of: dict[str, Path] = {}
        for file in files:
            path = Path(policy_dir) / file
            with safe_open(path, framework='pt') as opened:
                self._file_of |= dict.fromkeys(opened.keys(), path)

    def __getitem__(self, name: str) -> Tensor:
        with safe_open(self._file_of[name], framework='pt') as file:
            return file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def __len__(self) -> int:
        return len(self._file_of)


def config_of(manifest: Manifest) -> VLAConfig:
    """Return the configuration of the model that a manifest describes."""
    return VLAConfig.from_dict({**manifest.model.config, 'action_slice': manifest.action.slice})


def load_model(policy_dir: Path, dtype: torch.dtype | None = None) -> LightVLA:
    """Build the model of a policy folder in eval mode, shard by shard.

    :param dtype: Type to which the weights are converted; None keeps the stored type.
    :raises ContractError: When the folder cannot be trusted or holds no weights.
    :raises CheckpointError: When the weights do not fit the model.
    """
    manifest = load_manifest(policy_dir)
    if manifest.model is None:
        raise ContractError(f'{policy_dir}: it holds graphs but no weights of a model')
    config = config_of(manifest)
    with torch.device('meta'):
        model = LightVLA(config)
    missing = set(model.state_dict())
    for name in manifest.model.weights:
        path = Path(policy_dir) / name
        try:
            tensors = load_file(path)
        except SafetensorError as error:
            raise CheckpointError(f'{path}: damaged: {error}') from None
        for key, value in tensors.items():
            check_dense(value, key, path)
        if dtype is not None:
            tensors = {key: value.to(dtype) for key, value in tensors.items()}
        if strangers := tensors.keys() - missing:
            raise CheckpointError(f'{path}: {sorted(strangers)[0]} does not belong to this model')
        missing -= tensors.keys()
        try:
            model.load_state_dict(tensors, strict=False, assign=True)
        except RuntimeError as error:
            raise CheckpointError(f'{path}: {one_line(error)}') from None
    if missing:
        raise CheckpointError(f'{policy_dir}: no weights for {sorted(missing)[0]}')
    return model.eval()


def used_shapes(config: VLAConfig) -> Shapes:
    """Return the shapes of all parameters of the model, by name."""
    with torch.device('meta'):
        model = LightVLA(config)
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def merged(weight: Tensor, delta: Tensor) -> Tensor:
    """Add a delta in fp32 and return the weight's own type."""
    return (weight.float() + delta).to(weight.dtype)


def check_dense(value: Tensor, name: str, path: Path) -> None:
    """Refuse a tensor that does not hold plain floating-point numbers.

    :raises CheckpointError: When it is, for example, quantised, sparse or of integers.
    """
    if value.is_quantized or value.is_nested or value.layout != torch.strided:
        kind = 'quantised' if value.is_quantized else 'nested' if value.is_nested else 'sparse'
        raise CheckpointError(f'{path}: {name} is {kind}; only dense tensors are accepted')
    if value.dtype not in TAKEN_NUMBERS:
        raise CheckpointError(other_numbers(path, name, str(value.dtype).removeprefix('torch.')))
    if value.is_meta:
        raise CheckpointError(f'{path}: {name} holds no numbers; save it again from a full model')


def other_numbers(path: Path, name: str, kind: str) -> str:
    """Return a message that names the type of a tensor's numbers and says what to do."""
    return (
        f'{path}: {name} holds {kind} numbers; weights must be fp32, fp16, bf16 or fp64: use the '
        'checkpoint from before it was quantised or converted'
    )
