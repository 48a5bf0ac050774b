"""Interfaces of packages that a robot has only if its controller or hand needs them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from lightvla_ros.errors import LightVLAError

CURES = {
    'control_msgs': 'apt install ros-jazzy-control-msgs',
    'franka_msgs': 'it comes with franka_ros2',
    'moveit_msgs': 'apt install ros-jazzy-moveit-msgs',
}


def interfaces(module: str, user: str, error: type[LightVLAError]) -> Any:
    """Import interfaces by name, such as ``franka_msgs.action``.

    :param user: What needs them, for the message.
    :param error: Raised with one line that says what to install, when they are not there.
    """
    try:
        return import_module(module)
    except ImportError as missing:
        package = module.partition('.')[0]
        raise error(f'{user} needs {package} ({missing}): {CURES[package]}') from None
