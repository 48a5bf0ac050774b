"""The launch arguments of ``franka_panda.launch.py``, for messages that name them.

A user who launches the node sees neither its parameters nor its topics, so messages name the launch
argument too.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from itertools import chain

from lightvla_ros.errors import ArgumentError, quoted

# parameter -> launch argument; other parameters are set in the file of the argument `params_file`
PARAMETERS = {
    'policy': 'checkpoint',
    'engine': 'engine',
    'provider': 'device',
    'use_sim_time': 'use_sim_time',
    'autostart': 'autostart',
    'image_transport': 'image_transport',
    'record': 'record',
    'record_folder': 'record_folder',
    'base_frame': 'base_frame',
    'ee_frame': 'ee_frame',
    'view': 'view',
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
    """Return the argument that remaps a relative topic to another one.

    A camera without a launch argument of its own is one of a robot's contract.
    """
    if topic in TOPICS:
        return f'{TOPICS[topic]}:={to}'
    camera = topic.removesuffix('/image')
    if camera != topic:
        return f'{topic}:={to} (cameras.{camera}.topic in the robot.yaml)'
    return f'--ros-args -r {topic}:={to}'


def instruction_command(topic: str, text: str) -> str:
    """Return a command that gives an instruction, to be pasted into a shell."""
    message = shlex.quote(f'{{data: {json.dumps(text, ensure_ascii=False)}}}')
    return f'ros2 topic pub --once {topic} std_msgs/msg/String {message}'


def ros_arguments(assignments: Sequence[str]) -> list[str]:
    """Turn launch arguments into the ROS arguments of the policy node.

    :param assignments: Such as ``wrist_image:=/camera/color/image_raw``: a launch argument, a
        parameter of the node, or, with a slash, a relative topic. The last one of a name counts.
    :raises ArgumentError: When one has another form, or is no argument of the node.
    """
    topics = {argument: topic for topic, argument in TOPICS.items()}
    names = {argument: name for name, argument in PARAMETERS.items()}
    found: dict[str, list[str]] = {}
    for assignment in assignments:
        name, sign, value = assignment.partition(':=')
        if not (name and sign and value):
            raise ArgumentError(
                f'{quoted(assignment)} is no NAME:=VALUE, such as a launch argument'
            )
        if name == 'namespace':
            found[name] = ['-r', f'__ns:=/{value.lstrip("/")}']
        elif name == 'params_file':
            found[name] = ['--params-file', value]
        elif name in topics or '/' in name:
            topic = topics.get(name, name)
            found[topic] = ['-r', f'{topic}:={value}']
        else:
            name = names.get(name, name)
            found[name] = ['-p', f'{name}:={value}']
    return ['--ros-args', *chain(*found.values())] if found else []
