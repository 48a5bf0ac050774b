"""``lightvla import``: a downloaded checkpoint -> a policy folder with weights and a manifest."""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tokenizers import Tokenizer

from lightvla_ros.contract import write_manifest
from lightvla_ros.manifest import POINTING_DOWN, Manifest
from lightvla_ros.new_folder import new_folder
from lightvla_ros.vla.checkpoint import Published, read_published
from lightvla_ros.vla.config import PrunerConfig
from lightvla_ros.vla.errors import CheckpointError

EMPTY_TOKEN = 29871  # LLaMA's id of a lone space: the prompt ends with it (modeling_prismatic.py)
BOS = 1
PROMPT_LENGTH = 64  # positions; LIBERO's longest prompt takes 43
PROPRIO_LAYOUT = ['ee_position', 'ee_axis_angle', 'gripper_qpos']


def import_policy(
    checkpoint: Path,
    policy_dir: Path,
    *,
    unnorm_key: str | None = None,
    pruning: str = 'lightvla',
    action_slice: str = 'training',
    base: Path | None = None,
) -> Manifest:
    """Write a policy folder from a published one. The graphs are made by ``models/export_trt.py``.

    The weights pass through memory in groups; never is all of the model in it.

    :param policy_dir: Created; must not exist or be empty.
    :param unnorm_key: Which statistics of ``dataset_statistics.json``; needed when it has several.
    :param pruning: ``lightvla`` or ``off`` (OpenVLA-OFT).
    :param action_slice: See ``model.py``.
    :raises CheckpointError: When the checkpoint cannot be trusted; nothing is left behind then.
    :raises FileExistsError: When the folder holds something.
    """
    checkpoint, policy_dir = Path(checkpoint), Path(policy_dir)
    published = read_published(checkpoint, base, pruning=PrunerConfig(method=pruning))
    document = _document(published, unnorm_key, action_slice)
    tokenizer = _tokenizer(checkpoint)
    created = not policy_dir.exists()
    new_folder(policy_dir)
    try:
        shutil.copyfile(tokenizer, policy_dir / 'tokenizer.json')
        weights = document['model']['weights']
        for index, tensors in enumerate(published.tensors()):
            weights.append(f'model-{index:05d}.safetensors')
            save_file(tensors, policy_dir / weights[-1])
            del tensors  # else two groups are in memory while the next one is read
        return write_manifest(policy_dir, document)
    except BaseException:
        for path in policy_dir.iterdir():
            path.unlink()
        if created:
            policy_dir.rmdir()
        raise


def check_published(published: Published, unnorm_key: str | None) -> None:
    """Find out whether a checked folder also has what the manifest needs.

    :raises CheckpointError: Of statistics, processor or tokenizer.
    """
    _document(published, unnorm_key, 'training')
    _tokenizer(published.folder)


def _document(published: Published, unnorm_key: str | None, action_slice: str) -> dict[str, Any]:
    config = published.config
    action, proprio = _statistics(published, unnorm_key)
    model = config.to_dict()
    del model['action_slice']  # the manifest's own field, below
    return {
        'name': re.sub(r'[^A-Za-z0-9._-]', '-', published.folder.resolve().name)[:64],
        'cameras': [
            {
                'name': name,
                'size': [config.image_size, config.image_size],
                'rotate_degrees': 0,
                'mirror': True,  # OpenVLA turns LIBERO's raw frame by 180 degrees
            }
            for name in ('third_person', 'wrist')
        ],
        'preprocessing': {
            'jpeg_quality': 95,
            'crop_area': 0.9,
            'normalisation': _normalisation(published),
        },
        'prompt': {
            'template': 'In: What action should the robot take to {instruction}?\nOut:',
            'lowercase': True,
            'tokenizer': 'tokenizer.json',
            'append_ids': [EMPTY_TOKEN],
            'length': PROMPT_LENGTH,
        },
        'proprio': {
            'layout': PROPRIO_LAYOUT,
            'q01': proprio['q01'],
            'q99': proprio['q99'],
            'quaternion_reference': list(POINTING_DOWN),
        },
        'action': {
            'chunk_length': config.chunk_length,
            'control_period': 0.05,
            'translation_scale': 0.05,
            'rotation_scale': 0.5,
            'q01': action['q01'],
            'q99': action['q99'],
            'mask': action.get('mask', [True] * config.action_size),
            'gripper_closed': 0.0,
            'gripper_open': 1.0,
            'reference': 'measured_pose',
            'slice': action_slice,
        },
        'tokens': {'patch_size': config.patch_size, 'buckets': [config.patches]},
        'model': {'config': model, 'weights': []},
        'graphs': None,
        'golden': None,
        'engines': [],
        'verified': [],
        'provenance': {
            'generator': 'lightvla import',
            'checkpoint': published.folder.resolve().name,
            'lora': published.lora,
            'dropped': list(published.dropped),
        },
    }


def _statistics(published: Published, key: str | None) -> tuple[dict, dict]:
    """Return the statistics of action and proprio of one dataset."""
    path = published.folder / 'dataset_statistics.json'
    statistics = published.settings['dataset_statistics.json']
    there = ', '.join(sorted(statistics))
    if key is None:
        if len(statistics) != 1:
            raise CheckpointError(f'{path}: several datasets; choose one by --unnorm-key: {there}')
        (key,) = statistics
    if key not in statistics:
        raise CheckpointError(f'{path}: no unnorm_key {key!r}; there are: {there}')
    sizes = {'action': published.config.action_size, 'proprio': published.config.proprio_size}
    for part, size in sizes.items():
        for field in ('q01', 'q99'):
            values = (statistics[key].get(part) or {}).get(field)
            if not isinstance(values, list) or len(values) != size:
                raise CheckpointError(f'{path}: {key}.{part}.{field}: {size} numbers are needed')
    return statistics[key]['action'], statistics[key]['proprio']


def _normalisation(published: Published) -> list[dict]:
    """Return mean and std of both towers, as the checkpoint's own processor has them.

    DINOv2's are rounded to bf16 there: the conversion ran with that default type (lightvla.md 1.2).
    """
    path = published.folder / 'preprocessor_config.json'
    document = published.settings['preprocessor_config.json']
    if document.get('image_resize_strategy', 'resize-naive') != 'resize-naive':
        raise CheckpointError(
            f'{path}: image_resize_strategy is {document["image_resize_strategy"]!r}; only '
            "'resize-naive' is known"
        )
    towers = document.get('tvf_normalize_params')
    if not isinstance(towers, list) or len(towers) != 2:
        raise CheckpointError(f'{path}: tvf_normalize_params of two towers are needed')
    try:
        return [{'mean': list(each['mean']), 'std': list(each['std'])} for each in towers]
    except (TypeError, KeyError) as error:
        raise CheckpointError(f'{path}: tvf_normalize_params: {error!r}') from None


def _tokenizer(checkpoint: Path) -> Path:
    """Return the path of ``tokenizer.json`` after a look at what it does."""
    path = checkpoint / 'tokenizer.json'
    if not path.is_file():
        raise CheckpointError(
            f'{path}: is missing; make it with transformers: '
            'AutoTokenizer.from_pretrained(DIR, use_fast=True).save_pretrained(DIR)'
        )
    try:
        ids = Tokenizer.from_file(str(path)).encode('In: x').ids
    except Exception as error:  # the library raises a plain Exception
        raise CheckpointError(f'{path}: not a tokenizer: {error}') from None
    if ids[:1] != [BOS]:
        raise CheckpointError(f'{path}: a prompt must begin with id {BOS} (BOS), not {ids[:1]}')
    return path


def run(parsed: argparse.Namespace) -> int:
    """Import and say what was done; return the exit code."""
    manifest = import_policy(
        Path(parsed.checkpoint),
        Path(parsed.out),
        unnorm_key=parsed.unnorm_key,
        pruning=parsed.pruning,
        action_slice=parsed.action_slice,
        base=parsed.base and Path(parsed.base),
    )
    provenance = manifest.provenance
    print(
        f'{parsed.out}: {len(manifest.model.weights)} files of weights, LoRA: {provenance["lora"]}'
    )
    print(f'dropped, as it does no work: {len(provenance["dropped"])} tensors (see provenance)')
    return 0
