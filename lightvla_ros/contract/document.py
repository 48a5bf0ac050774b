"""A new policy's manifest, as a document, from its robot's contract."""

from __future__ import annotations

from typing import Any

from lightvla_ros.contract.robot import Robot

TEMPLATE = 'In: What action should the robot take to {instruction}?\nOut:'  # OpenVLA's prompt


def manifest_document(name: str, robot: Robot, image_size: int, patch_size: int) -> dict[str, Any]:
    """Return a manifest's document for a robot, with plausible statistics.

    The caller must fill in the fields that depend on the tokenizer and the graphs.
    """
    low, high = robot.state_range
    steps = robot.action
    spring = steps.execution == 'spring'
    return {
        'name': name,
        'cameras': [
            {
                'name': camera,
                'size': [image_size, image_size],
                'rotate_degrees': each.rotate,
                'mirror': each.mirror,
                'aspect': each.aspect,
                **({} if each.fit == 'stretch' else {'fit': each.fit}),
            }
            for camera, each in robot.cameras.items()
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
            'template': TEMPLATE,
            'lowercase': True,
            'tokenizer': 'tokenizer.json',
        },
        'proprio': {
            'layout': list(robot.layout),
            'q01': low,
            'q99': high,
            'quaternion_reference': list(robot.quaternion_reference),
        }
        if robot.layout
        else None,
        'action': {
            'chunk_length': steps.chunk_length,
            'control_period': robot.control_period,
            'translation_scale': steps.translation_scale,
            'rotation_scale': steps.rotation_scale,
            'q01': [-1.0, -1.0, -1.0, -0.2, -0.2, -0.2, 0.0],
            'q99': [1.0, 1.0, 1.0, 0.2, 0.2, 0.2, 1.0],
            'mask': [True] * 6 + [False],
            'gripper_closed': robot.gripper.closed,
            'gripper_open': robot.gripper.open,
            # a spring pulls from where the arm is, a displacement goes on from the last target
            'reference': 'measured_pose' if spring else 'previous_target',
            'slice': 'training',
            **({} if spring else {'execution': steps.execution}),
        },
        'tokens': {'patch_size': patch_size, 'buckets': []},
        'model': None,
        'graphs': None,
        'golden': None,
        'engines': [],
        'verified': [],
        'provenance': {},
    }
