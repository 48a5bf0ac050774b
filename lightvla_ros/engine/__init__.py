"""Engines, which run a policy's two graphs.

- ``base``: the interface of every engine: two calls, their inputs and outputs
- ``embedding``: the embedded prompt, which the graphs take instead of token ids
- ``onnxruntime``: ONNX Runtime: any CPU, and GPUs by its providers
- ``openvino``: OpenVINO: x86 and Arm processors, in fp32 or bf16
- ``openvino_split``: cuts ``encode`` in two, so that scores stay in fp32
- ``signature``: the inputs and outputs that the graphs must have
- ``static_model``: the PyTorch model with static shapes, replayed as CUDA graphs
- ``tensorrt``: TensorRT: NVIDIA GPUs
- ``torch``: PyTorch: the reference for the others
- ``torch_cuda``: PyTorch on NVIDIA GPUs, with CUDA graphs
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightvla_ros.contract import Manifest
from lightvla_ros.engine.base import Engine
from lightvla_ros.errors import EngineError

ENGINES = ('onnxruntime', 'openvino', 'tensorrt', 'torch-cuda')
FROM_WEIGHTS = ('torch', 'torch-cuda')  # these need no exported graphs
OPTIONS = {
    'onnxruntime': ('provider',),
    'openvino': ('precision',),
    'tensorrt': (),
    'torch': ('precision',),
    'torch-cuda': ('precision', 'compiled'),
}


def options_of(
    name: str,
    provider: str | None = None,
    precision: str | None = None,
    compiled: bool | None = None,
) -> dict[str, Any]:
    """Return the options of the named engine; None leaves an option to the engine.

    :param provider: See ``onnxruntime``; the other engines have none.
    :param precision: Precision in which the engine computes.
    :param compiled: See ``torch_cuda``; the other engines have no such option.
    :raises EngineError: When there is no such engine, or it has no choice of precision.
    """
    if name not in OPTIONS:
        raise _unknown(name)
    if precision is not None and 'precision' not in OPTIONS[name]:
        raise EngineError(
            f'{name} computes in the precision in which the policy was exported; leave out '
            f'precision {precision}, or export with it'
        )
    given = {'provider': provider, 'precision': precision, 'compiled': compiled}
    return {key: given[key] for key in OPTIONS[name] if given[key] is not None}


def sees_gpu() -> bool:
    """Return whether the engine ``torch-cuda`` would find a GPU here; needs PyTorch."""
    from lightvla_ros.engine.torch_cuda import has_gpu

    return has_gpu()


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
    if name == 'torch-cuda':
        from lightvla_ros.engine.torch_cuda import TorchCudaEngine

        return TorchCudaEngine(policy_dir, manifest, **options)
    if name == 'torch':  # for comparison on a developer's machine, not for a robot
        from lightvla_ros.engine.torch import TorchEngine

        return TorchEngine(policy_dir, manifest, **options)
    raise _unknown(name)


def _unknown(name: str) -> EngineError:
    return EngineError(f'there is no engine {name!r}; choose {", ".join(ENGINES)}')
