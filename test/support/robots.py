"""The contract of a made-up arm, which differs from LIBERO's in everything it can."""

ROBOT = {
    'name': 'arm-1',
    'control_period': 0.1,
    'cameras': {
        'front': {'mount': 'scene', 'size': [480, 640], 'topic': '/front/image_raw'},
        'hand': {'mount': 'wrist', 'size': [480, 640], 'rotate': 180},
    },
    'proprio': {'ee_position': 'm', 'gripper_qpos': {'unit': 'm'}},
    'action': {
        'execution': 'displacement',
        'translation_scale': 0.01,
        'rotation_scale': 0.1,
        'chunk_length': 5,
    },
    'gripper': {'open': 1.0, 'closed': -1.0, 'joints': ['left', 'right'], 'reach': 0.05},
    'frames': {'base': 'arm_base', 'ee': 'arm_tcp'},
    'workspace': {'low': [0.2, -0.3, 0.0], 'high': [0.7, 0.3, 0.5]},
    'speed': {'translation': 0.2, 'rotation': 0.5},
    'topics': {'ee_pose': '/arm/pose', 'gripper_state': '/arm/joints'},
}
