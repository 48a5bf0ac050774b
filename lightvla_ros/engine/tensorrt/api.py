"""The part of TensorRT's Python API that this package uses, as a type for the checker.

The module is chosen at run time, ``tensorrt`` or ``tensorrt_rtx``, and passed on as ``trt``; a type
checker takes a plain module's attributes for granted. The classes' methods come from
``tensorrt-stubs``, which ``tools/setup.sh`` installs for ``make lint`` alone.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import tensorrt


class TensorRT(Hashable, Protocol):
    """The module ``tensorrt`` or ``tensorrt_rtx``."""

    __version__: str
    Builder: type[tensorrt.Builder]
    BuilderFlag: type[tensorrt.BuilderFlag]
    ExecutionContextAllocationStrategy: type[tensorrt.ExecutionContextAllocationStrategy]
    ILogger: type[tensorrt.ILogger]
    IProgressMonitor: type[tensorrt.IProgressMonitor]
    LayerType: type[tensorrt.LayerType]
    MemoryPoolType: type[tensorrt.MemoryPoolType]
    NetworkDefinitionCreationFlag: type[tensorrt.NetworkDefinitionCreationFlag]
    OnnxParser: type[tensorrt.OnnxParser]
    Runtime: type[tensorrt.Runtime]


def sizes_of(dims: tensorrt.Dims) -> tuple[int, ...]:
    """Return a shape that TensorRT gave."""
    return tuple(dims[axis] for axis in range(len(dims)))
