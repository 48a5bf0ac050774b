"""`lightvla new-policy`: writes the contract of a robot of your own, and its launch file.

Without a file it asks.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from lightvla_ros.contract.manifest import EXECUTIONS, PROPRIO_LAYOUT, PROPRIO_UNITS
from lightvla_ros.contract.robot import (
    FITS,
    MOUNTS,
    read_robot,
    robot_from,
)
from lightvla_ros.errors import ArgumentError, ConfigError, one_line
from lightvla_ros.files import write_text
from lightvla_ros.runtime.own_robot import LAUNCH, PARAMETERS, launch_text, parameter_text

CONTRACT = 'robot.yaml'
HEAD = '# The contract of {name}; docs/how-to/own-robot.md describes the fields.\n'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``lightvla new-policy``."""
    parser.add_argument(
        'robot',
        type=Path,
        nargs='?',
        metavar='FILE',
        help='contract, as YAML (config/robots/libero.yaml is one); without it the command asks',
    )
    parser.add_argument(
        '--out',
        type=Path,
        required=True,
        metavar='DIR',
        help=f'folder for {CONTRACT}, {LAUNCH} and {PARAMETERS}; it may hold FILE itself',
    )


def run(parsed: argparse.Namespace) -> int:
    """Write the files, and say what comes next.

    :returns: 0.
    """
    if parsed.robot is None:
        document = asked(input)
        try:
            robot = robot_from(document)
        except ConfigError as error:
            raise ConfigError(f'these answers make no contract: {error}') from None
        text = HEAD.format(name=robot.name) + yaml.safe_dump(
            document, sort_keys=False, default_flow_style=None
        )
    else:
        robot = read_robot(parsed.robot)
        text = parsed.robot.read_text(encoding='utf-8')
    files = {CONTRACT: text, LAUNCH: launch_text(robot), PARAMETERS: parameter_text(robot)}
    parsed.out.mkdir(parents=True, exist_ok=True)
    kept = parsed.out / CONTRACT  # the other two files are only ever written from it
    if kept.exists() and not (parsed.robot is not None and kept.samefile(parsed.robot)):
        raise ArgumentError(
            f'{kept} is there already; change it and give it as FILE, or name another folder'
        )
    for name, content in files.items():
        write_text(parsed.out / name, content)
    cameras = ', '.join(f'{name} ({each.mount})' for name, each in robot.cameras.items())
    print(f'{parsed.out}: {", ".join(files)} of {robot.name}, with cameras {cameras}')
    print(f'next: name it in your data YAML (robot: {CONTRACT}), train, export, and then')
    print(f'  ros2 launch {parsed.out / LAUNCH} checkpoint:=/path/to/policy')
    return 0


def asked(answer: Callable[[str], str]) -> dict[str, Any]:
    """Ask for a contract; an empty answer takes the default in brackets.

    :param answer: Shows a question and returns what the user types, as :func:`input`.
    :raises ArgumentError: When the answers end early.
    :returns: The contract's document, which may not be valid as a whole.
    """

    def ask(question: str, default: str, read: Callable[[str], Any] = str) -> Any:
        while True:
            try:
                text = answer(f'{question} [{default}]: ').strip() or default
            except EOFError:
                raise ArgumentError('the answers ended; give the contract as FILE') from None
            try:
                return read(text)
            except ValueError as error:
                print(f'  {one_line(error)}')

    def choose(question: str, choices: tuple[str, ...]) -> str:
        return ask(f'{question} ({", ".join(choices)})', choices[0], _one_of(choices))

    name = ask('name of the robot', 'my-robot')
    rate = ask('control rate of the policy [Hz]', '20', _positive)
    cameras: dict[str, Any] = {}
    count = ask('number of cameras, those at the wrist last', '2', int)
    for index in range(count):
        camera = ask(f'camera {index + 1}: name', 'third_person' if index == 0 else 'wrist')
        cameras[camera] = {
            'topic': ask(f'  topic of {camera} (raw images)', f'/{camera}/image_raw'),
            'mount': choose('  where it is', MOUNTS),
            'size': ask('  height and width [px]', '480 640', _numbers(2, int)),
            'rotate': ask('  degrees by which its pictures must be turned (0, 180)', '0', int),
            'fit': choose("  how pictures become the policy's square", FITS),
        }
    parts = ask('parts of the state, in order', ' '.join(PROPRIO_LAYOUT), _parts)
    gripper = {}
    if 'gripper_qpos' in parts:
        gripper = {
            'joints': ask('names of the two finger joints', 'left right', str.split),
            'reach': ask('largest distance of a finger from the middle [m]', '0.04', _positive),
        }
    return {
        'name': name,
        'control_period': 1 / rate,
        'cameras': cameras,
        'proprio': {part: PROPRIO_UNITS[part] for part in parts},
        'action': {'execution': choose('what a step is to the arm', EXECUTIONS[::-1])},
        **({'gripper': gripper} if gripper else {}),
        'topics': {
            'ee_pose': ask('topic of the pose of the end effector', '/ee_pose'),
            'gripper_state': ask('topic of the finger joints', '/gripper/joint_states'),
        },
        'frames': {
            'base': ask('frame of the base of the arm', 'base_link'),
            'ee': ask('frame of the end effector', 'tcp'),
        },
        'quaternion_reference': ask(
            'orientation of the hand in its usual pose, x y z w', '1 0 0 0', _numbers(4, float)
        ),
        'workspace': {
            'low': ask('lower corner of the workspace [m]', '0.25 -0.4 0.01', _numbers(3, float)),
            'high': ask('upper corner', '0.75 0.4 0.6', _numbers(3, float)),
        },
        'speed': {
            'translation': ask('largest speed of the hand [m/s]', '0.25', _positive),
            'rotation': ask('and of its turns [rad/s]', '0.6', _positive),
        },
    }


def _one_of(choices: tuple[str, ...]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f'{text!r} is not one of {", ".join(choices)}')
        return text

    return read


def _numbers(count: int, kind: type) -> Callable[[str], list]:
    def read(text: str) -> list:
        found = [kind(each) for each in text.replace(',', ' ').split()]
        if len(found) != count:
            raise ValueError(f'{count} numbers are needed, not {len(found)}')
        return found

    return read


def _parts(text: str) -> list[str]:
    parts = text.replace(',', ' ').split()
    for part in parts:
        _one_of(PROPRIO_LAYOUT)(part)
    return parts


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise ValueError(f'{text} is not above 0')
    return value
