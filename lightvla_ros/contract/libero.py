"""LIBERO's suites, and the fields that the manifests of all policies for its Panda share.

The simulator is not imported, so the command line knows the suites without it.
"""

from __future__ import annotations

from typing import Any

from lightvla_ros.contract.manifest import POINTING_DOWN, Proprio

# Tasks per suite; a test compares with LIBERO's benchmark. Each task has INIT_STATES saved states.
TASKS = {
    'libero_spatial': 10,
    'libero_object': 10,
    'libero_goal': 10,
    'libero_10': 10,
    'libero_90': 90,
}
INIT_STATES = 50

# Steps per episode by suite, as in OpenVLA-OFT's run_libero_eval.py
MAX_STEPS = {
    'libero_spatial': 220,
    'libero_object': 280,
    'libero_goal': 300,
    'libero_10': 520,
    'libero_90': 400,
}

EXPERT_SUITES = ('libero_object', 'libero_spatial')  # suites that the scripted expert can solve

CHUNK_LENGTH = 8  # steps; OpenVLA-OFT's for LIBERO (prismatic/vla/constants.py)
PROPRIO_LAYOUT = ('ee_position', 'ee_axis_angle', 'gripper_qpos')

# OpenVLA-OFT's state vector for LIBERO
PROPRIO = Proprio(PROPRIO_LAYOUT, (), ())
# The policies' cameras, and their names in MuJoCo
CAMERAS = {'third_person': 'agentview', 'wrist': 'robot0_eye_in_hand'}
CONTROL_PERIOD = 0.05  # s
PERIOD = 50_000_000  # ns, the same
TRANSLATION_SCALE = 0.05  # m per unit, robosuite's osc_pose.json
ROTATION_SCALE = 0.5  # rad per unit
TEMPLATE = 'In: What action should the robot take to {instruction}?\nOut:'  # OpenVLA's prompt


def manifest_document(name: str, image_size: int, patch_size: int) -> dict[str, Any]:
    """Return a manifest's document for LIBERO's Panda, with plausible statistics.

    The caller must fill in the fields that depend on the tokenizer and the graphs.
    """
    return {
        'name': name,
        'cameras': [
            {
                'name': camera,
                'size': [image_size, image_size],
                'rotate_degrees': 0,
                'mirror': True,  # OpenVLA turns LIBERO's raw frame by 180 degrees
            }
            for camera in CAMERAS
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
            'layout': list(PROPRIO_LAYOUT),
            'q01': [-0.4, -0.35, 0.0, 1.5, -1.5, -1.5, 0.0, -0.045],
            'q99': [0.2, 0.35, 1.4, 3.8, 1.5, 1.5, 0.045, 0.0],
            'quaternion_reference': list(POINTING_DOWN),
        },
        'action': {
            'chunk_length': CHUNK_LENGTH,
            'control_period': CONTROL_PERIOD,
            'translation_scale': TRANSLATION_SCALE,
            'rotation_scale': ROTATION_SCALE,
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
