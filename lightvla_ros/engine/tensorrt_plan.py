"""A plan file, loaded: its inputs and outputs, and execution contexts of it.

Unverified: no GPU was at hand.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from types import ModuleType
from typing import Any

from lightvla_ros.engine.base import EngineError
from lightvla_ros.engine.cuda import Buffers
from lightvla_ros.engine.ports import ANY, Ports
from lightvla_ros.engine.tensorrt_log import error_log

DTYPES = {
    'FLOAT': 'float32',
    'HALF': 'float16',
    'BF16': 'bfloat16',
    'INT64': 'int64',
    'INT32': 'int32',
    'BOOL': 'bool',
}


class Plan:
    """A deserialised engine.

    :param trt: The module ``tensorrt``.
    :raises EngineError: When TensorRT cannot load the file.
    """

    def __init__(self, trt: ModuleType, path: Path) -> None:
        self._trt = trt
        self._path = path
        error_log(trt).take()  # what was said before is not about this file
        self._runtime = trt.Runtime(error_log(trt))
        # mapped: a Jetson's GPU shares the memory into which 13 GB would else be read first
        with path.open('rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as plan:
            self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise self._error('cannot load it')

    @property
    def ports(self) -> Ports:
        """Inputs and outputs; an axis that is as long as the bucket is ``ANY``."""
        engine = self._engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        return {name: (self._dtype(name), tuple(engine.get_tensor_shape(name))) for name in names}

    @property
    def scratch_bytes(self) -> int:
        """Memory that the contexts need beside the tensors, at most [bytes]."""
        return self._engine.device_memory_size_v2

    def context(
        self, buffers: Buffers, stream: int, profile: int = 0, bucket: int | None = None
    ) -> Any:
        """Return an execution context, bound to the buffers and their scratch memory.

        :param bucket: Of the profile; None where all shapes are static.
        :raises EngineError: When TensorRT refuses any of it.
        """
        engine = self._engine
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        context = engine.create_execution_context(strategy)
        if context is None:
            raise self._error('cannot create a context')
        if bucket is not None:
            self._check(context.set_optimization_profile_async(profile, stream), 'set the profile')
        for name, (_, shape) in self.ports.items():
            if ANY in shape:
                sizes = tuple(bucket if size == ANY else size for size in shape)
                self._check(context.set_input_shape(name, sizes), f'set the shape of {name}')
            self._check(context.set_tensor_address(name, buffers.address(name)), f'bind {name}')
        context.set_device_memory(buffers.scratch, self.scratch_bytes)
        return context

    def enqueue(self, context: Any, stream: int) -> None:
        """Enqueue one run.

        :raises EngineError: When TensorRT refuses.
        """
        self._check(context.execute_async_v3(stream), 'run')

    def _dtype(self, name: str) -> str:
        kind = self._engine.get_tensor_dtype(name).name
        return DTYPES.get(kind, kind)

    def _check(self, done: bool, what: str) -> None:
        if not done:
            raise self._error(f'cannot {what}')

    def _error(self, fault: str) -> EngineError:
        said = error_log(self._trt).take() or ['it does not say why']
        return EngineError(f'{self._path}: TensorRT {self._trt.__version__} {fault}: {said[0]}')
