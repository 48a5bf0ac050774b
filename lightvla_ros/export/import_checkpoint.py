"""``lightvla import``: a downloaded checkpoint -> a policy folder with weights and a manifest."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tokenizers import Tokenizer

from lightvla_ros.contract import ACTION_SIZE, Manifest, write_manifest
from lightvla_ros.contract.document import TEMPLATE, manifest_document
from lightvla_ros.contract.libero import OPENVLA_LIBERO
from lightvla_ros.contract.robot import Robot
from lightvla_ros.errors import CheckpointError
from lightvla_ros.export.published import Published, read_published
from lightvla_ros.export.published_files import check_file
from lightvla_ros.export.published_statistics import choose_statistics
from lightvla_ros.files import whole_folder, write_text
from lightvla_ros.policy.tokenizer import check_tokenizer, read_tokenizer
from lightvla_ros.vla.config import PrunerConfig

EMPTY_TOKEN = 29871  # LLaMA's id of a lone space: the prompt ends with it (modeling_prismatic.py)
BOS = 1
PROMPT_LENGTH = 64  # positions; LIBERO's longest prompt takes 43


def import_policy(
    checkpoint: Path,
    policy_dir: Path,
    *,
    unnorm_key: str | None = None,
    pruning: PrunerConfig | None = None,
    action_slice: str = 'training',
    base: Path | None = None,
    robot: Robot = OPENVLA_LIBERO,
) -> Manifest:
    """Write a policy folder from a published checkpoint. ``lightvla export`` makes the graphs.

    The weights are read in groups; the whole model is never in memory.

    :param policy_dir: Folder to create; it must not exist, or be empty.
    :param unnorm_key: Name of a dataset in ``dataset_statistics.json``; needed if it has several.
    :param pruning: How the model prunes, which its weights do not show; None: as LightVLA.
    :param action_slice: See ``model.py``.
    :param robot: The contract of the robot that the checkpoint was trained on, which it does not
        say.
    :returns: The manifest; its ``provenance['notes']`` lists what a user should know.
    :raises CheckpointError: When the checkpoint cannot be trusted; no files are left behind.
    :raises ContractError: When its tokenizer cannot be trusted.
    :raises FileExistsError: When the folder is not empty.
    """
    checkpoint, policy_dir = Path(checkpoint), Path(policy_dir)
    published = read_published(
        checkpoint,
        base,
        pruning=pruning or PrunerConfig(),
        cameras=len(robot.cameras),
        chunk_length=robot.action.chunk_length,
    )
    tokenizer, notes = _tokenizer(published)
    document = _document(published, unnorm_key, action_slice, notes, robot)
    with whole_folder(policy_dir):
        if notes:  # it differs from the downloaded file
            write_text(policy_dir / 'tokenizer.json', tokenizer.to_str())
        else:
            shutil.copyfile(checkpoint / 'tokenizer.json', policy_dir / 'tokenizer.json')
        weights = document['model']['weights']
        for index, tensors in enumerate(published.tensors()):
            weights.append(f'model-{index:05d}.safetensors')
            save_file(tensors, policy_dir / weights[-1])
            del tensors  # otherwise two groups are in memory while the next one is read
        return write_manifest(policy_dir, document)


def check_published(
    published: Published, unnorm_key: str | None, robot: Robot = OPENVLA_LIBERO
) -> tuple[str, ...]:
    """Check that a checkpoint also has everything that the manifest needs.

    :returns: The notes of :func:`import_policy`.
    :raises CheckpointError: When the statistics cannot be used.
    :raises ContractError: When the tokenizer cannot be used.
    """
    _, notes = _tokenizer(published)
    return tuple(_document(published, unnorm_key, 'training', notes, robot)['provenance']['notes'])


def _document(
    published: Published,
    unnorm_key: str | None,
    action_slice: str,
    notes: tuple[str, ...],
    robot: Robot,
) -> dict[str, Any]:
    config = published.config
    sizes = {'action': config.action_size, 'proprio': config.proprio_size}
    if sizes != {'action': ACTION_SIZE, 'proprio': len(robot.state_columns)}:
        raise CheckpointError(
            f'{published.folder}: the model takes a state of {config.proprio_size} numbers and '
            f'returns {config.action_size} per step; the contract of {robot.name} has '
            f'{len(robot.state_columns)}, and a step has {ACTION_SIZE} (--robot names the contract)'
        )
    statistics = choose_statistics(
        published.statistics, unnorm_key, sizes, published.folder / 'dataset_statistics.json'
    )
    model = config.to_dict()
    del model['action_slice']  # the manifest's own field, below
    name = re.sub(r'[^A-Za-z0-9._-]', '-', published.folder.resolve().name)[:64]
    document = manifest_document(name, robot, config.image_size, config.patch_size)
    document['preprocessing']['normalisation'] = published.normalisation
    document['prompt'] |= {'append_ids': [EMPTY_TOKEN], 'length': PROMPT_LENGTH}
    document['proprio'] |= statistics.proprio
    document['action'] |= statistics.action
    document['action']['slice'] = action_slice
    document['tokens']['buckets'] = [config.patches]
    document['model'] = {'config': model, 'weights': []}
    document['provenance'] = {
        'generator': 'lightvla import',
        'checkpoint': published.folder.resolve().name,
        'lora': published.lora,
        'dropped': list(published.dropped),
        'notes': [*notes, *statistics.notes],
    }
    return document


def _tokenizer(published: Published) -> tuple[Tokenizer, tuple[str, ...]]:
    """Return the tokenizer without truncation and padding, and a note for each removed setting.

    The published code sets both in every call, so the stored settings never had an effect.
    """
    path = published.folder / 'tokenizer.json'
    check_file(
        path,
        'make it with transformers: '
        'AutoTokenizer.from_pretrained(DIR, use_fast=True).save_pretrained(DIR)',
    )
    tokenizer, notes = read_tokenizer(path), []
    for setting in ('truncation', 'padding'):
        if getattr(tokenizer, setting) is not None:
            getattr(tokenizer, f'no_{setting}')()
            notes.append(f'{path}: it stores a {setting} setting; the policy folder leaves it out')
    begin = check_tokenizer(tokenizer, path, TEMPLATE, published.config.language.vocabulary)
    if begin != BOS:
        raise CheckpointError(f'{path}: a prompt must begin with id {BOS} (BOS), not {begin}')
    return tokenizer, tuple(notes)
