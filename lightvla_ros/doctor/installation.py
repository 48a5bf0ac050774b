"""Judges what is installed: libraries, ROS, and GPUs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from lightvla_ros.doctor.findings import Finding, failed, passed, warned
from lightvla_ros.machine import machine

# What a node needs: the packages of setup.py's install_requires, and their modules
MODULES = {
    'jsonschema': 'jsonschema',
    'numpy': 'numpy',
    'onnxruntime': 'onnxruntime',
    'opencv-python': 'cv2',
    'packaging': 'packaging',
    'PyYAML': 'yaml',
    'simplejpeg': 'simplejpeg',
    'threadpoolctl': 'threadpoolctl',
    'tokenizers': 'tokenizers',
}
# What an engine needs besides; onnxruntime may be missing where another one runs
ENGINE_MODULES = {
    'onnxruntime': 'onnxruntime',
    'openvino': 'openvino',
    'tensorrt': 'tensorrt',
    'torch-cuda': 'torch',
}
ROS_MODULES = ('rclpy', 'sensor_msgs.msg', 'geometry_msgs.msg', 'lightvla_ros.msg')
ROS_VARIABLES = (
    'ROS_DISTRO',
    'RMW_IMPLEMENTATION',
    'ROS_DOMAIN_ID',
    'ROS_AUTOMATIC_DISCOVERY_RANGE',
)
GPU_ENGINES = ('tensorrt', 'torch-cuda')
QUERY = ('--query-gpu=name,driver_version,memory.total,memory.free', '--format=csv,noheader')


def judge_installation(engine: str, provider: str) -> Iterator[Finding]:
    """Check computer, libraries, ROS and GPU for an engine.

    :param provider: Execution provider of ONNX Runtime.
    """
    here = machine()
    yield passed(
        'computer',
        f'{here["cpu"]}, {here["cores"]} cores, {here["memory_gib"]} GiB; {here["system"]}, '
        f'Python {here["python"]}',
    )
    yield from _libraries(engine)
    yield _ros()
    yield _gpu(engine in GPU_ENGINES or (engine == 'onnxruntime' and 'CPU' not in provider))


def _libraries(engine: str) -> Iterator[Finding]:
    modules = {name: module for name, module in MODULES.items() if name not in ENGINE_MODULES}
    modules[engine] = ENGINE_MODULES[engine]
    wanted = _required()
    good = []
    for name, module in modules.items():
        try:
            loaded = import_module(module)
        except Exception as error:  # a library may fail to load in any way
            yield failed(
                name, f'cannot be imported: {error}', f'pip install {wanted.get(name, name)}'
            )
            continue
        found = _version(name) or str(getattr(loaded, '__version__', 'of unknown version'))
        asked = wanted.get(name)
        if asked is not None and not asked.specifier.contains(found, prereleases=True):
            yield failed(name, f'{found}, but {asked} is needed', f"pip install '{asked}'")
        else:
            good.append(f'{name} {found}')
    yield passed('libraries', ', '.join(good))


def _required() -> dict[str, Requirement]:
    """Return what this package asks for, by name; empty in a workspace of colcon."""
    try:
        found = [Requirement(text) for text in requires('lightvla_ros') or ()]
    except PackageNotFoundError:
        return {}
    return {each.name: each for each in found if each.marker is None}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ''


def _ros() -> Finding:
    cure = 'source the setup.bash of ROS 2 and of the workspace, in this Python'
    for name in ROS_MODULES:
        try:
            import_module(name)
        except Exception as error:
            return failed('ROS 2', f'{name} cannot be imported: {error}', cure)
    settings = [f'{name}={os.environ[name]}' for name in ROS_VARIABLES if name in os.environ]
    return passed('ROS 2', f'rclpy and messages load; {", ".join(settings) or "defaults"}')


def _gpu(needed: bool) -> Finding:
    """Ask nvidia-smi, which comes with the driver."""
    program = shutil.which('nvidia-smi')
    if program is None:
        text = 'no nvidia-smi, so no GPU of NVIDIA'
        if needed:
            cure = "install NVIDIA's driver, or choose an engine that runs on the CPU"
            return failed('GPU', text, cure)
        return passed('GPU', f'{text}; the engine does not need one')
    try:
        said = subprocess.run(
            [program, *QUERY], capture_output=True, text=True, timeout=20, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        judge = failed if needed else warned
        cure = 'run nvidia-smi: driver and kernel module must fit each other'
        return judge('GPU', f'nvidia-smi fails: {error}', cure)
    found = '; '.join(line.strip() for line in said.splitlines() if line.strip())
    return passed('GPU', f'{found} (name, driver, memory, free)')
