"""The model that a run trains: its configuration, and shapes and types of its initial weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer

from lightvla_ros.contract import MANIFEST_NAME, parse_manifest
from lightvla_ros.contract.robot import Robot
from lightvla_ros.errors import CheckpointError, ConfigError, ContractError, TrainError, one_line
from lightvla_ros.train.config import TrainConfig
from lightvla_ros.train.config_sources import ModelSource
from lightvla_ros.train.data import robot_of
from lightvla_ros.vla.config import PRESETS, VLAConfig, preset, robot_shapes
from lightvla_ros.vla.weights import Shapes, config_of, other_numbers, used_shapes
from lightvla_ros.vla.word_tokenizer import word_tokenizer

POLICY = 'policy'  # the folder in a run's folder
PUBLISHED = {'openvla-oft-7b': torch.bfloat16}  # type of the weights in published checkpoints
STORED = {
    'F64': torch.float64,
    'F32': torch.float32,
    'F16': torch.float16,
    'BF16': torch.bfloat16,
}


@dataclass(frozen=True)
class ModelPlan:
    """A model before its weights are loaded.

    :param config: Its configuration, with the run's changes.
    :param numbers: Type of each initial weight, by name.
    :param origin: Where the shapes come from, for people.
    """

    config: VLAConfig
    numbers: Mapping[str, torch.dtype]
    origin: str


def plan_model(config: TrainConfig, like: str | None = None) -> ModelPlan:
    """Find the model of a run without reading weights.

    :param like: Preset or policy folder with the shapes of ``model.from``, which is used while
        that does not exist.
    :raises ConfigError: When the configuration of the model is invalid.
    :raises TrainError: When ``model.from`` and ``like`` are absent, or do not fit the changes.
    :raises CheckpointError: When stored weights do not fit the model.
    """
    source = config.model
    if source.start is None:
        model = config_from_preset(source, robot_of(config.data), word_tokenizer())
        return _of_one_type(model, torch.float32, f'the preset {source.preset}')
    try:
        found = _plan_of_folder(policy_folder(source))
    except TrainError as error:
        if like is None:
            raise TrainError(
                f'{error}; for a dry run before that, name a preset or a policy folder of the '
                'same shapes with --like'
            ) from None
        found = _plan_like(like, source.start)
    wanted = changed(found.config, source.changes)
    if source.bounds == 'robot':
        wanted = of_robot(wanted, robot_of(config.data), source)
    if wanted == found.config:
        return found
    check_changes(used_shapes(found.config), wanted)
    numbers = {name: found.numbers.get(name, torch.float32) for name in used_shapes(wanted)}
    return ModelPlan(wanted, numbers, found.origin)


def _plan_like(like: str, missing: str) -> ModelPlan:
    if like in PRESETS:
        origin = f'the preset {like}, because {missing} is not there'
        return _of_one_type(preset(like), PUBLISHED.get(like, torch.float32), origin)
    if not (Path(like) / MANIFEST_NAME).is_file():
        raise TrainError(
            f'--like {like}: neither a policy folder nor a preset; presets: {", ".join(PRESETS)}'
        )
    found = _plan_of_folder(Path(like))
    origin = f'{like}, because {missing} is not there'
    return ModelPlan(found.config, found.numbers, origin)


def _of_one_type(config: VLAConfig, number: torch.dtype, origin: str) -> ModelPlan:
    return ModelPlan(config, dict.fromkeys(used_shapes(config), number), origin)


def _plan_of_folder(folder: Path) -> ModelPlan:
    """Read manifest and the headers of the weights; hashes are not checked."""
    path = folder / MANIFEST_NAME
    try:
        document = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ContractError(f'{path}: not JSON: {error}') from None
    manifest = parse_manifest(document, str(path))
    if manifest.model is None:
        raise ContractError(f'{folder}: it holds graphs but no weights of a model')
    config, numbers = config_of(manifest), {}
    wanted = used_shapes(config)
    for name in manifest.model.weights:
        for weight, (shape, number) in _stored(folder / name).items():
            if wanted.get(weight) != shape:
                raise CheckpointError(f'{folder / name}: {weight} {shape} is not of this model')
            numbers[weight] = number
    if missing := sorted(wanted.keys() - numbers.keys()):
        raise CheckpointError(f'{folder}: no weights for {missing[0]}')
    return ModelPlan(config, numbers, str(folder))


def _stored(path: Path) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Return shape and type of each weight of a file."""
    found = {}
    try:
        with safe_open(path, framework='pt') as file:
            for name in file.keys():  # noqa: SIM118 (not a dict)
                stored = file.get_slice(name)
                if stored.get_dtype() not in STORED:
                    raise CheckpointError(other_numbers(path, name, stored.get_dtype()))
                found[name] = tuple(stored.get_shape()), STORED[stored.get_dtype()]
    except SafetensorError as error:
        raise CheckpointError(f'{path}: damaged: {one_line(error)}') from None
    return found


def config_from_preset(source: ModelSource, robot: Robot, tokenizer: Tokenizer) -> VLAConfig:
    """Return the configuration of a model from scratch for a robot.

    :raises ConfigError: When it is invalid, or has fewer words than the tokenizer.
    """
    config = of_robot(changed(preset(source.preset), source.changes), robot, source)
    words = tokenizer.get_vocab_size()
    if words > config.language.vocabulary:
        raise ConfigError(
            f'model: language.vocabulary {config.language.vocabulary} is less than the '
            f"tokenizer's {words} words; raise it in model.changes"
        )
    return config


def of_robot(config: VLAConfig, robot: Robot, source: ModelSource) -> VLAConfig:
    """Give a model the cameras, the state and the steps of a robot's contract.

    :raises ConfigError: When ``model.changes`` sets another number.
    """
    fields = robot_shapes(robot)
    for name, value in fields.items():
        if source.changes.get(name, value) != value:
            raise ConfigError(
                f'model.changes.{name} is {source.changes[name]}, but by the contract of '
                f'{robot.name} it is {value}; leave it out'
            )
    return replace(config, **fields)


def changed(config: VLAConfig, changes: Mapping[str, Any]) -> VLAConfig:
    """Return a configuration with some fields changed, nested ones by nested mappings.

    :raises ConfigError: When a field is unknown or a value is invalid.
    """
    document = config.to_dict()
    _merge(document, changes, 'model.changes')
    return VLAConfig.from_dict(document)


def _merge(document: dict[str, Any], changes: Mapping[str, Any], where: str) -> None:
    for name, value in changes.items():
        if name not in document:
            raise ConfigError(f'{where}.{name} is unknown; there are: {", ".join(document)}')
        if isinstance(document[name], dict):
            if not isinstance(value, dict):
                raise ConfigError(f'{where}.{name}: a mapping is needed, not {value!r}')
            _merge(document[name], value, f'{where}.{name}')
        else:
            document[name] = value


def policy_folder(source: ModelSource) -> Path:
    """Return the folder with the manifest: ``source.start``, or the policy in that run's folder.

    :raises TrainError: When neither has a manifest.
    """
    folder = Path(source.start)
    for each in (folder, folder / POLICY):
        if (each / MANIFEST_NAME).is_file():
            return each
    if not folder.exists():
        raise TrainError(
            f'model.from: {folder} is not there; make it with lightvla train --config FILE, or '
            f'from a published checkpoint with lightvla import --checkpoint DIR --out {folder}'
        )
    raise TrainError(
        f'model.from: {folder}: neither a policy nor a finished run; if the run is unfinished, '
        'write its policy first: lightvla train --config FILE --write-policy CHECKPOINT --out DIR'
    )


def check_changes(weights: Shapes, config: VLAConfig) -> None:
    """Check that initial weights fit a changed model; only LightVLA*'s queries may be new.

    :raises TrainError: When a weight is missing or has another shape.
    """
    for name, shape in used_shapes(config).items():
        found = weights.get(name)
        if found != shape and not (found is None and name.startswith('queries.')):
            raise TrainError(
                f'model.changes: {name} would have shape {shape}, but the initial model has '
                f'{found}; only fields that do not change weights can be changed'
            )
