"""The launch arguments of ``franka_panda.launch.py``, for messages that name them.

A user who launches the node sees neither its parameters nor its topics, so messages name the launch
argument too.
"""

from __future__ import annotations

import json
import shlex

# parameter -> launch argument; other parameters are set in the file of the argument `params_file`
PARAMETERS = {
    'policy': 'checkpoint',
    'engine': 'engine',
    'provider': 'device',
    'use_sim_time': 'use_sim_time',
    'autostart': 'autostart',
    'image_transport': 'image_transport',
    'base_frame': 'base_frame',
    'ee_frame': 'ee_frame',
}
# relative topic -> launch argument
TOPICS = {
    'third_person/image': 'third_person_image',
    'wrist/image': 'wrist_image',
    'ee_pose': 'ee_pose',
    'gripper_state': 'gripper_state',
    'instruction': 'instruction',
    'enable': 'enable',
}


def parameter(name: str) -> str:
    """Return the name of a parameter and of the launch argument that sets it."""
    argument = PARAMETERS.get(name)
    by = f'`{argument}`' if argument else f'`params_file`, key `{name}`'
    return f'the parameter `{name}` (launch argument {by})'


def remapping(topic: str, to: str) -> str:
    """Return the argument that remaps a relative topic to another one."""
    argument = TOPICS.get(topic)
    return f'{argument}:={to}' if argument else f'--ros-args -r {topic}:={to}'


def instruction_command(topic: str, text: str) -> str:
    """Return a command that gives an instruction, to be pasted into a shell."""
    message = shlex.quote(f'{{data: {json.dumps(text, ensure_ascii=False)}}}')
    return f'ros2 topic pub --once {topic} std_msgs/msg/String {message}'
