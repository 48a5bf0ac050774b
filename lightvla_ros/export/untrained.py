"""Writing the untrained policy, which fills a trained one's place in tests and demo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from lightvla_ros.contract import Manifest, load_manifest, write_manifest
from lightvla_ros.export.graph_layers import Weights
from lightvla_ros.export.untrained_graphs import Shape, act_graph, encode_graph
from lightvla_ros.policy import Observation, Policy

BOS, PAD, END_OF_PROMPT = 1, 0, 2
GOLDEN_INSTRUCTIONS = (
    'hold',
    'pick up the alphabet soup and place it in the basket',
    'pick up the black bowl between the plate and the ramekin and place it on the plate',
)


def write_untrained_policy(policy_dir: Path, seed: int = 0, shape: Shape | None = None) -> Manifest:
    """Generate a policy folder with seeded random weights; the same seed gives the same files.

    :param policy_dir: Created; must not exist or be empty.
    :raises FileExistsError: When the folder holds something.
    """
    policy_dir = Path(policy_dir)
    policy_dir.mkdir(parents=True, exist_ok=True)
    if any(policy_dir.iterdir()):
        raise FileExistsError(f'{policy_dir} is not empty; remove it or name another folder')
    shape = shape or Shape()
    weights = Weights(seed)
    stop_embedding = weights(1, 1, shape.width)
    onnx.save(encode_graph(shape, weights, stop_embedding), policy_dir / 'encode.onnx')
    onnx.save(act_graph(shape, weights, stop_embedding), policy_dir / 'act.onnx')
    _byte_tokenizer().save(str(policy_dir / 'tokenizer.json'))
    golden = _golden_inputs(shape, seed)
    np.savez(policy_dir / 'golden.npz', **golden)
    document = _document(shape, seed)
    write_manifest(policy_dir, document)
    # Now the folder can be run; run it for the outputs of its golden observations.
    golden.update(_golden_outputs(policy_dir, golden))
    np.savez(policy_dir / 'golden.npz', **golden)
    write_manifest(policy_dir, document)
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
    return {
        'name': 'untrained',
        'cameras': [
            {
                'name': name,
                'size': [shape.image, shape.image],
                'rotate_degrees': 0,
                'mirror': True,
            }
            for name in ('third_person', 'wrist')
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
            'append_ids': [END_OF_PROMPT],
            'length': shape.prompt,
        },
        'proprio': {
            'layout': ['ee_position', 'ee_axis_angle', 'gripper_qpos'],
            'q01': [-0.4, -0.35, 0.0, 1.5, -1.5, -1.5, 0.0, -0.045],
            'q99': [0.2, 0.35, 1.4, 3.8, 1.5, 1.5, 0.045, 0.0],
        },
        'action': {
            'chunk_length': shape.chunk,
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
        'tokens': {
            'patch_size': shape.patch,
            'buckets': [*(b for b in (16, 32, 64, 96) if b < shape.tokens), shape.tokens],
        },
        'model': None,
        'graphs': {'encode': 'encode.onnx', 'act': 'act.onnx'},
        'golden': {'file': 'golden.npz', 'action_tolerance': 1e-3, 'min_jaccard': 0.9},
        'provenance': {
            'generator': 'lightvla_ros.export.untrained',
            'seed': seed,
            'trained': False,
            'onnx': onnx.__version__,
            'numpy': np.__version__,
        },
    }


def _golden_inputs(shape: Shape, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng([seed, 1])
    count = len(GOLDEN_INSTRUCTIONS)
    coarse = random.integers(0, 256, (count, shape.cameras, 8, 8, 3), np.uint8)
    return {
        'images': np.repeat(np.repeat(coarse, 20, axis=2), 20, axis=3),  # 160 x 160 blocks
        'proprio': random.uniform(-0.1, 0.1, (count, shape.proprio)),
        'instruction': np.array(GOLDEN_INSTRUCTIONS),
        'kept': np.zeros((count, shape.tokens), bool),
        'actions': np.zeros((count, shape.chunk, 7), np.float32),
    }


def _golden_outputs(policy_dir: Path, golden: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    policy = Policy.load(policy_dir)
    kept, actions = np.zeros_like(golden['kept']), np.zeros_like(golden['actions'])
    for index, instruction in enumerate(golden['instruction']):
        observation = Observation(
            tuple(golden['images'][index]), str(instruction), golden['proprio'][index]
        )
        prediction = policy.infer(observation)
        kept[index, prediction.kept_patches] = True
        actions[index] = prediction.normalised
    policy.close()
    return {'kept': kept, 'actions': actions}
