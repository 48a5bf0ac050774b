"""Start of a run: its model, its tokenizer, and the manifest of its future policy."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from lightvla_ros.contract import (
    MANIFEST_NAME,
    SCHEMA_VERSION,
    Manifest,
    parse_manifest,
)
from lightvla_ros.contract.document import TEMPLATE, manifest_document
from lightvla_ros.contract.robot import SCALE_TOLERANCE, Robot
from lightvla_ros.demonstrations.frames import Frames
from lightvla_ros.demonstrations.statistics import Statistics, statistics_of
from lightvla_ros.errors import ImageError, TrainError, one_line
from lightvla_ros.files import write_text
from lightvla_ros.policy.preprocessor import check_aspect
from lightvla_ros.policy.tokenizer import read_tokenizer
from lightvla_ros.train.bounds import move_bounds, set_bounds
from lightvla_ros.train.config import TrainConfig
from lightvla_ros.train.data import FrameStore
from lightvla_ros.train.model_config import (
    changed,
    check_changes,
    config_from_preset,
    of_robot,
    policy_folder,
)
from lightvla_ros.train.paraphrases import all_texts
from lightvla_ros.train.views import CROP_AREA
from lightvla_ros.vla.config import VLAConfig
from lightvla_ros.vla.model import LightVLA
from lightvla_ros.vla.weights import config_of, load_model
from lightvla_ros.vla.word_tokenizer import (
    END_OF_PROMPT,
    PROMPT_LENGTH,
    with_words,
    word_tokenizer,
)

ANOTHER_ROBOT = 'set model.bounds to robot, so that it becomes a policy of theirs'
# What a manifest says of other weights than the trained ones
UNTRUE_AFTER_TRAINING = {
    'graphs': None,
    'golden': None,
    'fp8': None,
    'familiarity': None,
    'engines': [],
    'verified': [],
}
DOCUMENT, TOKENIZER = 'policy_document.json', 'tokenizer.json'


@dataclass(frozen=True)
class Start:
    """A model with its manifest and tokenizer.

    :param document: Document of the manifest, without names of weights and files.
    :param tokenizer: Path of the tokenizer file.
    """

    model: LightVLA
    document: dict[str, Any]
    tokenizer: Path

    @property
    def manifest(self) -> Manifest:
        """The document, checked and typed."""
        return typed(self.document)


def typed(document: Mapping[str, Any]) -> Manifest:
    """Check a document whose folder is not written yet."""
    files = {name: '0' * 64 for name in (TOKENIZER, 'model.safetensors')}
    model = {**document['model'], 'weights': ['model.safetensors']}
    whole = {
        **document,
        'model': model,
        'schema_version': SCHEMA_VERSION,
        'files': files,
        'provenance': {'trained': True},
    }
    return parse_manifest(whole, 'the policy to be trained')


def start(config: TrainConfig, store: FrameStore, folder: Path) -> Start:
    """Build the model, and write document and tokenizer into the run's folder.

    :raises TrainError: When the model does not fit the data, or the folder to start from.
    :raises ConfigError: When the configuration of the model is invalid.
    """
    if config.model.start is None:
        begun = _from_scratch(config, store, folder)
    else:
        begun = _from_folder(config, store, folder)
    _check_images(begun, store)
    write_text(folder / DOCUMENT, json.dumps(begun.document, indent=2) + '\n')
    return begun


def _from_scratch(config: TrainConfig, store: FrameStore, folder: Path) -> Start:
    texts = _texts(config, store)
    tokenizer = word_tokenizer(texts, store.robot.words)
    model_config = config_from_preset(config.model, store.robot, tokenizer)
    tokenizer.save(str(folder / TOKENIZER))
    torch.manual_seed(config.seed)
    model = LightVLA(model_config)
    spread_words(model, tokenizer.get_vocab_size())
    document = _document(config, model_config, store)
    document['prompt'] |= {
        'append_ids': [END_OF_PROMPT],
        'length': _prompt_length(tokenizer, texts),
    }
    return Start(model, document, folder / TOKENIZER)


def _texts(config: TrainConfig, store: FrameStore) -> list[str]:
    """Return everything that a request of the data is called."""
    return list(itertools.chain(*all_texts(store.instructions, config.data.paraphrases)))


def _prompt_length(tokenizer: Tokenizer, instructions: Sequence[str]) -> int:
    """Return the number of ids that every prompt of the data fits into."""
    prompts = [TEMPLATE.format(instruction=text) for text in instructions]
    longest = max(len(tokenizer.encode(prompt).ids) for prompt in prompts)
    return max(PROMPT_LENGTH, longest + 1)  # the end of the prompt is one more


def spread_words(model: LightVLA, used: int) -> None:
    """Initialise the word embeddings as orthogonal vectors with an rms of 1.

    If words are similar, the pruner's queries are similar too, and all select one token.

    :param used: Number of rows that are used for words; if it exceeds the width, all rows get
        random directions.
    """
    table = model.language_model.model.embed_tokens.weight
    width = table.shape[1]
    with torch.no_grad():
        torch.nn.init.normal_(table)
        table *= math.sqrt(width) / table.norm(dim=1, keepdim=True)
        if used <= width:
            torch.nn.init.orthogonal_(table[:used])
            table[:used] *= math.sqrt(width)


def _document(config: TrainConfig, model: VLAConfig, store: FrameStore) -> dict[str, Any]:
    document = manifest_document(config.name, store.robot, model.image_size, model.patch_size)
    fields = model.to_dict()
    found = _statistics(store)
    set_bounds(document, found)
    document['action'] |= {
        'mask': list(found.action.mask),
        'slice': fields.pop('action_slice'),
    }
    _take_pictures(document, config, store)
    document['tokens'] = {'patch_size': model.patch_size, 'buckets': [model.patches]}
    document['model'] = {'config': fields}
    return document


def _take_pictures(document: dict[str, Any], config: TrainConfig, store: FrameStore) -> None:
    """Describe the data's pictures: their shape, and that they were not stored as JPEG."""
    for camera in document['cameras']:
        if 'fit' not in camera:
            camera['aspect'] = store.image_shape[2] / store.image_shape[1]
    document['preprocessing'] |= {
        'jpeg_quality': None,
        'crop_area': CROP_AREA if config.augment.crop else 1.0,
    }


def _statistics(store: FrameStore) -> Statistics:
    frames = Frames(
        images=np.empty((len(store), 0), np.uint8),
        proprio=store.proprio,
        chunks=store.chunks,
        instruction=store.instruction,
        episode=np.zeros(len(store), np.int64),
        segmentation=None,
        instructions=tuple(store.instructions),
        segmentation_names=(),
        robot=store.robot,
    )
    return statistics_of(frames)


def _from_folder(config: TrainConfig, store: FrameStore, folder: Path) -> Start:
    source = policy_folder(config.model)
    document = json.loads((source / MANIFEST_NAME).read_text()) | UNTRUE_AFTER_TRAINING
    manifest = typed(document)
    found = config_of(manifest)
    tokenizer = source / document['prompt']['tokenizer']
    more = None
    if config.model.words == 'data':
        read_tokenizer(tokenizer)  # which names a missing or damaged file
        more = with_words(tokenizer, _texts(config, store), found.language.vocabulary)
    model = load_model(source)
    wanted = changed(found, config.model.changes)
    if config.model.bounds == 'robot':
        wanted = of_robot(wanted, store.robot, config.model)
        _check_state_size(found, wanted, store.robot, source)
    else:
        check_contract(manifest, store, source)
    if wanted != found:
        model = _rebuilt(model, wanted, config.seed)
    fields = wanted.to_dict()
    document['action']['slice'] = fields.pop('action_slice')
    document['preprocessing']['crop_area'] = CROP_AREA if config.augment.crop else 1.0
    if config.model.bounds == 'data':
        move_bounds(model, document, _statistics(store), store.robot.layout)
    elif config.model.bounds == 'robot':
        made = manifest_document(config.name, store.robot, wanted.image_size, wanted.patch_size)
        document |= {name: made[name] for name in ('cameras', 'proprio')}
        document['action'] = made['action'] | {'slice': document['action']['slice']}
        set_bounds(document, _statistics(store))
        _take_pictures(document, config, store)
    document |= {
        'name': config.name,
        'model': {'config': fields},
        'tokens': {'patch_size': wanted.patch_size, 'buckets': [wanted.patches]},
    }
    if more is None:
        shutil.copyfile(tokenizer, folder / TOKENIZER)
    else:
        more.save(str(folder / TOKENIZER))
    document['prompt']['tokenizer'] = TOKENIZER
    return Start(model, document, folder / TOKENIZER)


def _check_state_size(found: VLAConfig, wanted: VLAConfig, robot: Robot, source: Path) -> None:
    """Say plainly what the weights do not allow.

    :raises TrainError: When the model reads a state of another size than the robot's.
    """
    if found.proprio_size != wanted.proprio_size:
        raise TrainError(
            f'model.from: {source}: its weights read a state of {found.proprio_size} numbers, but '
            f'the contract of {robot.name} has {wanted.proprio_size} (proprio); record the same '
            'parts, or train from a preset'
        )


def check_contract(manifest: Manifest, store: FrameStore, source: Path) -> None:
    """Refuse data whose numbers mean something else than the policy's.

    :raises TrainError: When they do.
    """
    action, robot = manifest.action, store.robot
    if abs(action.control_period / robot.control_period - 1) > SCALE_TOLERANCE:
        raise TrainError(
            f'model.from: {source}: is a policy for {1 / action.control_period:g} Hz, but the '
            f'demonstrations are at {1 / robot.control_period:g} Hz; record at that rate, train '
            f'from a preset, or {ANOTHER_ROBOT}'
        )
    if action.execution != robot.action.execution:
        raise TrainError(
            f"model.from: {source}: the policy's steps are a {action.execution}, but the "
            f"demonstrations' a {robot.action.execution} (execution in the data YAML, or in the "
            f"robot's contract); {ANOTHER_ROBOT}"
        )
    state = manifest.proprio
    pairs = {
        'cameras': ([camera.name for camera in manifest.cameras], list(robot.cameras)),
        'chunk_length': (action.chunk_length, robot.action.chunk_length),
        'translation_scale': (action.translation_scale, robot.action.translation_scale),
        'rotation_scale': (action.rotation_scale, robot.action.rotation_scale),
    }
    if state is not None:
        pairs['quaternion_reference'] = (
            list(state.quaternion_reference),
            list(robot.quaternion_reference),
        )
        if not set(state.layout) <= set(robot.layout):
            pairs['proprio'] = (list(state.layout), list(robot.layout))
    for name, (own, other) in pairs.items():
        if own != other:
            raise TrainError(
                f'model.from: {source}: is a policy of another robot: its {name} is {own}, but '
                f'that of the demonstrations ({robot.name}) is {other}; {ANOTHER_ROBOT}'
            )


def _rebuilt(model: LightVLA, config: VLAConfig, seed: int) -> LightVLA:
    """Put weights into a differently configured model; only LightVLA*'s queries may be new."""
    torch.manual_seed(seed)
    queries = LightVLA(_few_layers(config)).state_dict() if _has_queries(config) else {}
    weights = model.state_dict()
    check_changes({name: tuple(value.shape) for name, value in weights.items()}, config)
    with torch.device('meta'):
        rebuilt = LightVLA(config)
    state = {
        name: weights[name] if name in weights else queries[name] for name in rebuilt.state_dict()
    }
    try:
        rebuilt.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise TrainError(f'model.changes: {one_line(error)}') from None
    return rebuilt


def _has_queries(config: VLAConfig) -> bool:
    return config.pruning.method.startswith('lightvla_star')


def _few_layers(config: VLAConfig) -> VLAConfig:
    """Leave out the decoder layers above the one from which new queries are read."""
    layers = config.pruning.layer + 1
    return replace(config, language=replace(config.language, layers=layers))


def _check_images(begun: Start, store: FrameStore) -> None:
    cameras, height, width, _ = store.image_shape
    wanted = begun.model.config.cameras
    if cameras != wanted:
        raise TrainError(f'demonstrations have {cameras} cameras, but the model takes {wanted}')
    for camera in begun.manifest.cameras:
        try:
            check_aspect(height, width, camera)
        except ImageError as error:
            raise TrainError(f'demonstrations: {camera.name}: {error}') from None
