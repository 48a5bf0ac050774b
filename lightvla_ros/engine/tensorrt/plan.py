"""Loads and checks a plan file, and creates its execution contexts.

Unverified: no GPU was available.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import TYPE_CHECKING

from lightvla_ros.engine.signature import ANY, Ports, check_ports
from lightvla_ros.engine.tensorrt.api import TensorRT, sizes_of
from lightvla_ros.engine.tensorrt.cuda import Buffers
from lightvla_ros.engine.tensorrt.machine import error_log
from lightvla_ros.engine.tensorrt.memory import profile_index, sized
from lightvla_ros.errors import EngineError

if TYPE_CHECKING:
    import tensorrt

DTYPES = {
    'FLOAT': 'float32',
    'HALF': 'float16',
    'BF16': 'bfloat16',
    'INT64': 'int64',
    'INT32': 'int32',
    'BOOL': 'bool',
}


class Plan:
    """A deserialised engine of a policy.

    :param trt: The module ``tensorrt``.
    :param wanted: The inputs and outputs that it must have. The length of an ``ANY`` axis is the
        bucket.
    :param buckets: Buckets of the optimisation profiles, in their order; unused if no axis is
        ``ANY``.
    :raises EngineError: When TensorRT cannot load the file, or it is of another policy.
    """

    def __init__(self, trt: TensorRT, path: Path, wanted: Ports, buckets: tuple[int, ...]) -> None:
        self._trt = trt
        self._path = path
        self._wanted = wanted
        self._buckets = buckets
        error_log(trt).take()  # drops earlier messages, which are not about this file
        self._runtime = trt.Runtime(error_log(trt))
        # mapped: on a Jetson, reading 13 GB first would fill the memory that the GPU shares
        with path.open('rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as plan:
            self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise self._error('cannot load it')
        check_ports(path.name, self._ports(), wanted)
        self._check_profiles()

    @property
    def scratch_bytes(self) -> int:
        """Largest size of the memory that a context needs in addition to the tensors [bytes]."""
        return self._engine.device_memory_size_v2

    def context(
        self, buffers: Buffers, stream: int, bucket: int | None = None
    ) -> tensorrt.IExecutionContext:
        """Return an execution context, bound to the buffers and their scratch memory.

        :param bucket: One of the plan's buckets; None if all shapes are static.
        :raises EngineError: When TensorRT refuses a setting.
        """
        engine = self._engine
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        context = engine.create_execution_context(strategy)
        if context is None:
            raise self._error('cannot create a context')
        if bucket is not None:
            profile = profile_index(self._buckets, bucket)
            self._check(context.set_optimization_profile_async(profile, stream), 'set the profile')
            for name, shape in self._bucketed().items():
                sizes = sized(shape, bucket)
                self._check(context.set_input_shape(name, sizes), f'set the shape of {name}')
        for name in self._wanted:
            self._check(context.set_tensor_address(name, buffers.address(name)), f'bind {name}')
        context.set_device_memory(buffers.scratch, self.scratch_bytes)
        return context

    def enqueue(self, context: tensorrt.IExecutionContext, stream: int) -> None:
        """Enqueue one run.

        :raises EngineError: When TensorRT refuses.
        """
        self._check(context.execute_async_v3(stream), 'run')

    def _ports(self) -> Ports:
        """Return inputs and outputs, with ``ANY`` for an axis that takes a bucket.

        TensorRT reports -1 only for an axis that varies within a profile, which is not the case
        here, so a bucket's size is accepted as ``ANY``.
        """
        ports = {}
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            shape = sizes_of(self._engine.get_tensor_shape(name))
            _, wanted = self._wanted.get(name, ('', shape))
            if len(shape) == len(wanted):
                shape = tuple(
                    ANY if want == ANY and size in self._buckets else size
                    for size, want in zip(shape, wanted, strict=True)
                )
            ports[name] = (self._dtype(name), shape)
        return ports

    def _check_profiles(self) -> None:
        """Refuse an engine whose profiles are not the buckets, in their order."""
        bucketed = self._bucketed()
        count = self._engine.num_optimization_profiles
        if bucketed and count != len(self._buckets):
            raise self._other_profiles(f'it has {count} profiles')
        for name, shape in bucketed.items():
            for index, bucket in enumerate(self._buckets):
                found = [*map(sizes_of, self._engine.get_tensor_profile_shape(name, index))]
                if found != [sized(shape, bucket)] * 3:
                    sizes = ', '.join(str(list(each)) for each in found)
                    raise self._other_profiles(f'profile {index} takes {name} of {sizes}')

    def _bucketed(self) -> dict[str, tuple[int, ...]]:
        """Return the inputs that have an ``ANY`` axis, with their shapes."""
        return {name: shape for name, (_, shape) in self._wanted.items() if ANY in shape}

    def _other_profiles(self, found: str) -> EngineError:
        return EngineError(
            f"{self._path}: {found}, but the manifest's buckets are {list(self._buckets)}; "
            'export the policy again and build it again'
        )

    def _dtype(self, name: str) -> str:
        kind = self._engine.get_tensor_dtype(name).name
        return DTYPES.get(kind, kind)

    def _check(self, done: bool, what: str) -> None:
        if not done:
            raise self._error(f'cannot {what}')

    def _error(self, fault: str) -> EngineError:
        said = error_log(self._trt).take() or ['it does not say why']
        return EngineError(f'{self._path}: TensorRT {self._trt.__version__} {fault}: {said[0]}')
