"""The files that run the nodes on a robot, from its contract: launch file and parameters."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

import yaml

from lightvla_ros.contract.robot import Robot
from lightvla_ros.errors import ConfigError
from lightvla_ros.runtime.safety_filter import SafetyFilter
from lightvla_ros.runtime.safety_limits import SafetyLimits

LAUNCH, PARAMETERS = 'own_robot.launch.py', 'own_robot.param.yaml'
LONGEST_STEP = (0.2, 1.0)  # m, rad: the nodes' parameters allow no more
MOST_STRETCH = {'translation': 0.2, 'rotation': 1.0}  # m, rad; likewise
SLOWLY = 0.5  # of the speed of the chunks: a robot that is new to a policy starts so

_LAUNCH = '''"""Launches the nodes on {name}: the topics, frames and bounds of its contract.

Written by `lightvla new-policy` from robot.yaml: change that, and write this again. Further
arguments (checkpoint, engine, controller, gripper, ...) are those of franka_panda.launch.py.
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import PathJoinSubstitution
from launch_ros.actions import SetRemap
from launch_ros.substitutions import FindPackageShare

CAMERAS = {{
{cameras}}}
ARGUMENTS = {{
{arguments}    'params_file': str(Path(__file__).with_name({parameters!r})),
}}


def generate_launch_description():
    """Describe the nodes, with this robot's topics."""
    launch = [FindPackageShare('lightvla_ros'), 'launch', 'franka_panda.launch.py']
    nodes = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(PathJoinSubstitution(launch)),
        launch_arguments=ARGUMENTS.items(),
    )
    remaps = [SetRemap(name, topic) for name, topic in CAMERAS.items()]
    return LaunchDescription([GroupAction([*remaps, nodes])])
'''


def launch_text(robot: Robot) -> str:
    """Return the launch file of a robot."""
    cameras = camera_topics(robot)
    topics = robot.topics
    arguments = {
        'base_frame': robot.frames.base,
        'ee_frame': robot.frames.ee,
        'ee_pose': topics.ee_pose,
        'gripper_state': topics.gripper_state,
        'instruction': topics.instruction,
    }
    return _LAUNCH.format(
        name=robot.name,
        cameras=''.join(f'    {name!r}: {topic!r},\n' for name, topic in cameras.items()),
        arguments=''.join(f'    {name!r}: {value!r},\n' for name, value in arguments.items()),
        parameters=PARAMETERS,
    )


def camera_topics(robot: Robot) -> dict[str, str]:
    """Return where each camera's pictures are published, by the policy node's own topic."""
    return {f'{name}/image': each.topic or f'{name}/image' for name, each in robot.cameras.items()}


def assignments(robot: Robot) -> list[str]:
    """Return topics and parameters of the policy node as ``NAME:=VALUE``, for ``lightvla doctor``.

    :raises ConfigError: As :func:`parameter_text`.
    """
    values = {name: json.dumps(value) for name, value in parameters(robot)[0].items()}
    given = camera_topics(robot) | asdict(robot.topics) | values
    return [f'{name}:={value}' for name, value in given.items()]


def parameter_text(robot: Robot) -> str:
    """Return the parameter file of a robot.

    :raises ConfigError: When the contract's bounds are not ones that the safety filter takes.
    """
    policy, executor = parameters(robot)
    document = {
        '/**/lightvla': {'ros__parameters': policy},
        '/**/chunk_executor': {'ros__parameters': executor},
    }
    return (
        f'# The nodes on {robot.name}. Written by `lightvla new-policy` from robot.yaml.\n'
        '# All other parameters have their defaults; docs/reference/nodes.md lists them.\n'
        + yaml.safe_dump(document, sort_keys=False, default_flow_style=None)
    )


def parameters(robot: Robot) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the parameters of the policy node and of the chunk executor.

    :raises ConfigError: As :func:`parameter_text`.
    """
    translation, rotation = longest_step(robot)
    steps = {'max_step_translation': translation, 'max_step_rotation': rotation}
    frames = {'base_frame': robot.frames.base, 'ee_frame': robot.frames.ee}
    policy = {**frames, **steps, 'execution_speed': SLOWLY}
    if 'gripper_qpos' in robot.proprio:
        policy |= {
            'finger_joints': list(robot.gripper.joints),
            'finger_reach': robot.gripper.reach,
        }
    # The executor refuses what the policy node shortens: its bound is a bit larger, as rounding
    # would be refused too, and never below its default.
    refused = {
        name: round(min(max(getattr(SafetyLimits, name), 1.1 * value), most), 4)
        for (name, value), most in zip(steps.items(), LONGEST_STEP, strict=True)
    }
    bounds = {
        **refused,
        'max_speed': robot.speed.translation,
        'max_angular_speed': robot.speed.rotation,
        'box_min': list(robot.workspace.low),
        'box_max': list(robot.workspace.high),
        'approach_axis': _approach_axis(robot),
        **_room(robot),
    }
    try:
        SafetyFilter(SafetyLimits(**bounds), robot.action.execution)
    except ConfigError as error:
        raise ConfigError(
            f'the contract of {robot.name}, as bounds of the executor: {error}'
        ) from None
    return policy, {
        **frames,
        'execution': robot.action.execution,
        'speed': SLOWLY,
        'gripper_width': 2 * robot.gripper.reach,
        **bounds,
    }


def longest_step(robot: Robot) -> tuple[float, float]:
    """Return the longest translation [m] and rotation [rad] of a step that are taken for sound.

    A displacement is what the arm covers in a control period at its largest speed. A spring's
    set-point is as far ahead as the units of the steps reach; the executor bounds the arm's speed.
    """
    if robot.action.execution == 'displacement':
        found = [v * robot.control_period for v in (robot.speed.translation, robot.speed.rotation)]
    else:
        units = robot.action.translation_scale, robot.action.rotation_scale
        found = [math.sqrt(3) * unit for unit in units]
    translation, rotation = (
        round(min(max(value, 1e-4), most), 4)
        for value, most in zip(found, LONGEST_STEP, strict=True)
    )
    return translation, rotation


def _room(robot: Robot) -> dict[str, float]:
    """Return how far the arm may be behind: more for an arm that is faster than the defaults."""
    found = {}
    for part, speed in (
        ('translation', robot.speed.translation),
        ('rotation', robot.speed.rotation),
    ):
        least = getattr(SafetyLimits, f'max_stretch_{part}')
        # what it covers within the timeouts, and a bit
        stretch = min(max(least, 0.12 * speed), MOST_STRETCH[part])
        if stretch > least:
            found[f'max_stretch_{part}'] = round(stretch, 4)
            found[f'deviation_{part}'] = round(1.6 * stretch, 4)
    return found


def _approach_axis(robot: Robot) -> list[float]:
    """Return the direction of the z axis of the end effector at the contract's reference."""
    size = math.hypot(*robot.quaternion_reference)
    x, y, z, w = (each / size for each in robot.quaternion_reference)
    axis = (2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y))
    return [round(each, 4) + 0.0 for each in axis]
