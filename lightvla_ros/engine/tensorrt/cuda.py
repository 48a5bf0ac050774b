"""The CUDA calls that the TensorRT engine needs, with every return code checked.

Unverified: no GPU was available.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np

from lightvla_ros.engine.tensorrt.memory import Layout
from lightvla_ros.errors import EngineError

try:
    from cuda.bindings import runtime as cudart
except ImportError as error:
    raise EngineError(
        f'the CUDA bindings cannot be imported ({error}); pip install "cuda-bindings==12.*" or '
        '"==13.*", as the driver is'
    ) from None


def call(name: str, *arguments: Any) -> Any:
    """Call a function of the CUDA runtime and return its result without the return code.

    :raises EngineError: Naming the function and the error, when the code is not success.
    """
    code, *values = getattr(cudart, name)(*arguments)
    if code != cudart.cudaError_t.cudaSuccess:
        _, meaning = cudart.cudaGetErrorString(code)
        raise EngineError(f'{name} failed: {code.name}, {meaning.decode()}')
    return values[0] if values else None


def acquire(stack: ExitStack, release: str, name: str, *arguments: Any) -> Any:
    """Call a function that returns a resource; the stack releases it with ``release``."""
    resource = call(name, *arguments)
    # unchecked: after some errors every later call fails, too, and would hide the first error
    stack.callback(getattr(cudart, release), resource)
    return resource


def gpu_facts() -> dict[str, str]:
    """Return name and compute capability of the first GPU, and the driver's CUDA version.

    :raises EngineError: When there is no GPU, or its driver is too old for the bindings.
    """
    try:
        properties = call('cudaGetDeviceProperties', 0)
    except EngineError as error:
        raise EngineError(
            f'CUDA finds no usable GPU here ({error}); check nvidia-smi, or use another engine'
        ) from None
    driver = call('cudaDriverGetVersion')
    return {
        'gpu': properties.name.decode(),
        'compute_capability': f'{properties.major}.{properties.minor}',
        'cuda_driver': f'{driver // 1000}.{driver % 1000 // 10}',
    }


def capture(stack: ExitStack, stream: Any, enqueue: Callable[[], None]) -> Any:
    """Return an executable CUDA graph of the work that ``enqueue`` puts into the stream."""
    # thread-local: CUDA calls of other threads must not break the capture
    mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    call('cudaStreamBeginCapture', stream, mode)
    try:
        enqueue()
    except EngineError:
        cudart.cudaStreamEndCapture(stream)  # unchecked: it fails, too, and would hide the cause
        raise
    graph = call('cudaStreamEndCapture', stream)
    try:
        return acquire(stack, 'cudaGraphExecDestroy', 'cudaGraphInstantiate', graph, 0)
    finally:
        cudart.cudaGraphDestroy(graph)  # unchecked, as in acquire


class Buffers:
    """A layout's memory on the GPU, and the pinned memory of the host.

    :param stack: Frees both at its end.
    :param scratch: Size of the scratch memory after the tensors [bytes].
    """

    def __init__(self, stack: ExitStack, stream: Any, layout: Layout, scratch: int) -> None:
        self._stream = stream
        self._layout = layout
        size = layout.device_bytes + scratch
        self._device = acquire(stack, 'cudaFree', 'cudaMalloc', size)
        # the warm-up runs on this memory: zeros are valid numbers, old content may be NaN
        call('cudaMemsetAsync', self._device, 0, size, stream)
        self._pinned = acquire(stack, 'cudaFreeHost', 'cudaHostAlloc', layout.host_bytes, 0)
        ctypes.memset(self._pinned, 0, layout.host_bytes)
        self.scratch = self._device + layout.device_bytes

    def address(self, name: str) -> int:
        """Return the address of a tensor in GPU memory."""
        return self._device + self._layout.tensors[name].offset

    def host(self, name: str) -> np.ndarray:
        """Return a view of the pinned memory of a tensor that the host writes or reads."""
        tensor = self._layout.tensors[name]
        raw = (ctypes.c_byte * tensor.nbytes).from_address(self._pinned + tensor.offset)
        return np.frombuffer(memoryview(raw), tensor.dtype).reshape(tensor.shape)

    def write(self, name: str, values: np.ndarray) -> None:
        """Copy values into a tensor's pinned array.

        :raises EngineError: When their shape is not the tensor's.
        """
        host = self.host(name)
        if values.shape != host.shape:
            raise EngineError(
                f'{name} is {list(values.shape)}, the engine takes {list(host.shape)}'
            )
        np.copyto(host, values)

    def upload(self, name: str) -> None:
        """Enqueue the copy of a tensor from pinned memory to the GPU."""
        kind = cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._copy(name, self.address(name), self._host_address(name), kind)

    def download(self, name: str) -> None:
        """Enqueue the copy of a tensor from the GPU to pinned memory."""
        kind = cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._copy(name, self._host_address(name), self.address(name), kind)

    def _host_address(self, name: str) -> int:
        return self._pinned + self._layout.tensors[name].offset

    def _copy(self, name: str, to: int, source: int, kind: Any) -> None:
        size = self._layout.tensors[name].nbytes
        call('cudaMemcpyAsync', to, source, size, kind, self._stream)
