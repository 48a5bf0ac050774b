"""Turns the error that stops a command into one line on stderr and an exit code."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lightvla_ros.errors import ArgumentError, LightVLAError, sentence

FAILED, MISUSED, INTERRUPTED = 1, 2, 130


def exit_code(command: str, work: Callable[[], int], stopped: str = 'stopped') -> int:
    """Do the work and return its code, or print one line on stderr about the error.

    :param command: Name of the command, such as ``lightvla eval``.
    :param stopped: Text to print after Ctrl-C.
    :returns: The work's own code; 1 after an error, 2 after an error in the arguments, 130 after
        Ctrl-C or SIGTERM.
    """
    try:
        with _interruptible():
            return work()
    except ArgumentError as error:
        text, code = sentence(error), MISUSED
    except (LightVLAError, OSError) as error:
        text, code = sentence(error), FAILED
    except ModuleNotFoundError as error:
        text, code = f'{error}{_cure(error.name or "")}', FAILED
    except KeyboardInterrupt:
        print(file=sys.stderr)  # after the ^C
        text, code = stopped, INTERRUPTED
    print(f'{command}: {text}', file=sys.stderr)
    return code


# Modules by what installs them: an extra of setup.py, or ROS 2
_EXTRAS = {
    'train': ('h5py', 'onnx', 'onnx_ir', 'onnxscript', 'safetensors', 'torch', 'tqdm'),
    'sim': ('PIL', 'libero', 'matplotlib', 'mujoco', 'robosuite', 'scipy'),
    'data': ('av', 'pyarrow'),
    'record': ('rosbags',),
    'lora': ('peft',),
    'openvino': ('openvino',),
}
_ROS = ('rclpy', 'launch', 'ament_index_python', 'sensor_msgs', 'geometry_msgs', 'std_msgs')


def _cure(module: str) -> str:
    """Return advice on how to install a missing module."""
    top = module.split('.')[0]
    for extra, modules in _EXTRAS.items():
        if top in modules:
            return f"; this needs pip install 'lightvla_ros[{extra}]'"
    if module.startswith('lightvla_ros.msg'):
        return (
            '; pip does not install the ROS messages: source the workspace built by colcon, or run '
            "the repository's tools/build_messages.sh VENV"
        )
    if top in _ROS:
        return '; this needs ROS 2: source its setup.bash and that of the workspace'
    return ''


@contextmanager
def _interruptible() -> Iterator[None]:
    """Make SIGTERM and SIGINT raise KeyboardInterrupt, so that both end the workers.

    By default SIGTERM would leave them running, and a shell makes background jobs ignore SIGINT.
    """
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
