"""Writing the untrained policy, which fills a trained one's place in tests and demo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from lightvla_ros.contract import Manifest, load_manifest, write_manifest
from lightvla_ros.export.errors import ExportError
from lightvla_ros.export.graph_layers import Weights
from lightvla_ros.export.limits import LIMITS
from lightvla_ros.export.untrained_graphs import BOS, Shape, act_graph, encode_graph
from lightvla_ros.export.verify import verify, write_verifications
from lightvla_ros.golden import random_inputs, record
from lightvla_ros.new_folder import new_folder
from lightvla_ros.policy import Policy

PAD, END_OF_PROMPT = 0, 2


def write_untrained_policy(policy_dir: Path, seed: int = 0, shape: Shape | None = None) -> Manifest:
    """Generate a policy folder with seeded random weights; the same seed gives the same files.

    :param policy_dir: Created; must not exist or be empty.
    :raises FileExistsError: When the folder holds something.
    """
    policy_dir = new_folder(policy_dir)
    shape = shape or Shape()
    weights = Weights(seed)
    stop_embedding = weights(1, 1, shape.width)
    encode, embedding = encode_graph(shape, weights, stop_embedding)
    onnx.save(encode, policy_dir / 'encode.onnx')
    onnx.save(act_graph(shape, weights), policy_dir / 'act.onnx')
    np.save(policy_dir / 'embedding.npy', embedding)
    _byte_tokenizer().save(str(policy_dir / 'tokenizer.json'))
    document = _document(shape, seed)
    manifest = write_manifest(policy_dir, {**document, 'golden': None})
    # Now the folder can be run; run it for the outputs of its golden observations.
    policy = Policy.load(policy_dir)
    record(policy, random_inputs(manifest, 3, seed), policy_dir / 'golden.npz')
    policy.close()
    write_manifest(policy_dir, document)
    found, absent = verify(policy_dir, only='onnxruntime')
    if not found or not found[0].passed:
        raise ExportError(f'{policy_dir}: {absent or found[0].figures["faults"]}')
    write_verifications(policy_dir, found)
    return load_manifest(policy_dir)


def _byte_tokenizer() -> Tokenizer:
    """One token per byte behind three special ones: needs no vocabulary from elsewhere."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {'<pad>': PAD, '<s>': BOS, '</prompt>': END_OF_PROMPT}
    vocabulary.update({letter: index + 3 for index, letter in enumerate(alphabet)})
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single='<s> $A', special_tokens=[('<s>', BOS)]
    )
    return tokenizer


def _document(shape: Shape, seed: int) -> dict:
    """Return the manifest's document without its file hashes."""
    document = manifest_document('untrained', shape.image, shape.patch)
    return document | {
        'prompt': document['prompt'] | {'append_ids': [END_OF_PROMPT], 'length': shape.prompt},
        'tokens': {
            'patch_size': shape.patch,
            'buckets': [*(b for b in (16, 32, 64, 96) if b < shape.tokens), shape.tokens],
        },
        'graphs': {
            'encode': 'encode.onnx',
            'act': 'act.onnx',
            'embedding': 'embedding.npy',
            'precision': 'fp32',
        },
        'golden': {
            'file': 'golden.npz',
            'action_tolerance': LIMITS['fp32'].action_tolerance,
            'min_jaccard': LIMITS['fp32'].min_jaccard,
        },
        'provenance': {
            'generator': __name__,
            'seed': seed,
            'trained': False,
            'onnx': onnx.__version__,
            'numpy': np.__version__,
        },
    }


def manifest_document(name: str, image_size: int, patch_size: int) -> dict:
    """Return a manifest's document for LIBERO's Panda, with plausible statistics.

    What the tokenizer and the graphs decide is left to be filled in.
    """
    return {
        'name': name,
        'cameras': [
            {
                'name': camera,
                'size': [image_size, image_size],
                'rotate_degrees': 0,
                'mirror': True,
            }
            for camera in ('third_person', 'wrist')
        ],
        'preprocessing': {
            'jpeg_quality': 95,
            'crop_area': 0.9,
            'normalisation': [
                # DINOv2's constants as OpenVLA's checkpoints have them, rounded to bf16
                {
                    'mean': [0.484375, 0.455078125, 0.40625],
                    'std': [0.228515625, 0.2236328125, 0.224609375],
                },
                {'mean': [0.5, 0.5, 0.5], 'std': [0.5, 0.5, 0.5]},
            ],
        },
        'prompt': {
            'template': 'In: What action should the robot take to {instruction}?\nOut:',
            'lowercase': True,
            'tokenizer': 'tokenizer.json',
        },
        'proprio': {
            'layout': ['ee_position', 'ee_axis_angle', 'gripper_qpos'],
            'q01': [-0.4, -0.35, 0.0, 1.5, -1.5, -1.5, 0.0, -0.045],
            'q99': [0.2, 0.35, 1.4, 3.8, 1.5, 1.5, 0.045, 0.0],
        },
        'action': {
            'chunk_length': 8,
            'control_period': 0.05,
            'translation_scale': 0.05,
            'rotation_scale': 0.5,
            'q01': [-1.0, -1.0, -1.0, -0.2, -0.2, -0.2, 0.0],
            'q99': [1.0, 1.0, 1.0, 0.2, 0.2, 0.2, 1.0],
            'mask': [True] * 6 + [False],
            'gripper_closed': 0.0,
            'gripper_open': 1.0,
            'reference': 'measured_pose',
            'slice': 'training',
        },
        'tokens': {'patch_size': patch_size, 'buckets': []},
        'model': None,
        'graphs': None,
        'golden': None,
        'engines': [],
        'verified': [],
        'provenance': {},
    }
