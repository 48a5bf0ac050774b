"""Engines, which run a policy's two graphs.

- ``base``: the interface of every engine: two calls, their inputs and outputs
- ``embedding``: the embedded prompt, which the graphs take instead of token ids
- ``onnxruntime``: ONNX Runtime: any CPU, and GPUs by its providers
- ``openvino``: OpenVINO: x86 and Arm processors, in fp32 or bf16
- ``openvino_split``: cuts ``encode`` in two, so that scores stay in fp32
- ``signature``: the inputs and outputs that the graphs must have
- ``tensorrt``: TensorRT: NVIDIA GPUs
- ``torch``: PyTorch: the reference for the others
"""

from __future__ import annotations

from pathlib import Path

from lightvla_ros.contract import Manifest
from lightvla_ros.engine.base import Engine
from lightvla_ros.errors import EngineError

ENGINES = ('onnxruntime', 'openvino', 'tensorrt')


def load_engine(name: str, policy_dir: Path, manifest: Manifest, **options) -> Engine:
    """Load the named engine for a policy folder.

    :param options: Passed to the engine, for instance ``provider`` and ``threads``.
    :raises EngineError: When the name is unknown or the engine cannot be loaded with the options.
    """
    if name == 'onnxruntime':
        # imported here, so that a robot imports only the library that it uses
        from lightvla_ros.engine.onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(policy_dir, manifest, **options)
    if name == 'openvino':
        from lightvla_ros.engine.openvino import OpenVinoEngine

        return OpenVinoEngine(policy_dir, manifest, **options)
    if name == 'tensorrt':
        from lightvla_ros.engine.tensorrt.engine import TensorRTEngine

        return TensorRTEngine(policy_dir, manifest, **options)
    if name == 'torch':  # for comparison on a developer's machine, not for a robot
        from lightvla_ros.engine.torch import TorchEngine

        return TorchEngine(policy_dir, manifest, **options)
    raise EngineError(f'there is no engine {name!r}; choose {", ".join(ENGINES)}')
