"""Writes an untrained policy of the real model: seeded random weights, ready for export."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from lightvla_ros.contract import Manifest, write_manifest
from lightvla_ros.contract.document import manifest_document
from lightvla_ros.contract.libero import OPENVLA_LIBERO
from lightvla_ros.contract.robot import Robot
from lightvla_ros.errors import ConfigError
from lightvla_ros.files import whole_folder
from lightvla_ros.vla.config import VLAConfig, robot_shapes
from lightvla_ros.vla.model import LightVLA
from lightvla_ros.vla.word_tokenizer import END_OF_PROMPT, PROMPT_LENGTH, word_tokenizer


def write_untrained_weights(
    policy_dir: Path, config: VLAConfig, seed: int = 0, robot: Robot = OPENVLA_LIBERO
) -> Manifest:
    """Write a policy folder with weights but no graphs; ``lightvla export`` makes the graphs.

    :param policy_dir: Folder to create; it must not exist, or be empty.
    :param config: Cameras, state and chunk length are those of the robot instead.
    :raises ConfigError: When the robot's contract has more words than the model.
    :raises FileExistsError: When the folder is not empty.
    """
    policy_dir = Path(policy_dir)
    config = replace(config, **robot_shapes(robot))
    tokenizer = word_tokenizer(words=robot.words)
    words, vocabulary = tokenizer.get_vocab_size(), config.language.vocabulary
    if words > vocabulary:
        raise ConfigError(
            f'{robot.name}: the contract and the prompt have {words} words, but the model has room '
            f'for {vocabulary}; choose a larger preset, or fewer words'
        )
    with whole_folder(policy_dir):
        torch.manual_seed(seed)
        model = LightVLA(config)
        # Embeddings in random directions: otherwise all queries of the pruner would be the same.
        torch.nn.init.normal_(model.language_model.model.embed_tokens.weight)
        save_file(model.state_dict(), policy_dir / 'model.safetensors')
        tokenizer.save(str(policy_dir / 'tokenizer.json'))
        fields = config.to_dict()
        del fields['action_slice']  # the manifest's own field
        size = config.image_size, config.patch_size
        document = manifest_document('untrained-weights', robot, *size)
        document |= {
            'prompt': document['prompt'] | {'append_ids': [END_OF_PROMPT], 'length': PROMPT_LENGTH},
            'tokens': {'patch_size': config.patch_size, 'buckets': [config.patches]},
            'model': {'config': fields, 'weights': ['model.safetensors']},
            'provenance': {'generator': __name__, 'seed': seed, 'trained': False},
        }
        return write_manifest(policy_dir, document)
