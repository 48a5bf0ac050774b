"""Computes the position of each tensor of the two graphs in GPU memory.

All tensors are in one block. The graphs share the tensors that pass between them, so nothing is
copied: ``act`` reads the first ``bucket`` rows of ``tokens`` and ``positions`` where ``encode``
wrote them. The tensors that the host writes or reads come first; a pinned block of host memory has
the same part at the same offsets. After the tensors comes the scratch memory, which both engines
share because they never run at the same time::

    GPU   | pixels words word_mask proprio positions kept actions | tokens context | scratch |
    host  | pixels words word_mask proprio positions kept actions |
"""

from __future__ import annotations

from dataclasses import dataclass

from lightvla_ros.engine.signature import ANY, Ports
from lightvla_ros.errors import EngineError

ALIGNMENT = 256  # bytes; TensorRT requires it for tensors and scratch memory
ITEM_BYTES = {'float32': 4, 'float16': 2, 'bfloat16': 2, 'int64': 8, 'int32': 4, 'bool': 1}
HOST_TENSORS = ('pixels', 'words', 'word_mask', 'proprio', 'positions', 'kept', 'actions')


@dataclass(frozen=True)
class Tensor:
    """One tensor.

    :param dtype: A key of ``ITEM_BYTES``.
    :param offset: Distance from the beginning of the block [bytes].
    """

    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def nbytes(self) -> int:
        """Size [bytes]."""
        size = ITEM_BYTES[self.dtype]
        for length in self.shape:
            size *= length
        return size


@dataclass(frozen=True)
class Layout:
    """All tensors by name.

    :param host_bytes: Size of the part that host memory also has [bytes].
    :param device_bytes: Size of all tensors; scratch memory begins there [bytes].
    """

    tensors: dict[str, Tensor]
    host_bytes: int
    device_bytes: int


def lay_out(encode: Ports, act: Ports) -> Layout:
    """Place the tensors of both graphs; shared tensors have the shapes of ``encode``."""
    ports = {**act, **encode}
    tensors: dict[str, Tensor] = {}
    end = host_bytes = 0
    for name in sorted(ports, key=lambda name: name not in HOST_TENSORS):
        tensors[name] = tensor = Tensor(*ports[name], offset=end)
        end = aligned(end + tensor.nbytes)
        if name in HOST_TENSORS:
            host_bytes = end
    return Layout(tensors, host_bytes, end)


def aligned(size: int) -> int:
    """Round a number of bytes up to the alignment."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def sized(shape: tuple[int, ...], bucket: int) -> tuple[int, ...]:
    """Return a shape with the bucket instead of ``ANY``."""
    return tuple(bucket if size == ANY else size for size in shape)


def profile_index(buckets: tuple[int, ...], bucket: int) -> int:
    """Return the index of a bucket's optimisation profile; profiles are in the buckets' order.

    :raises EngineError: When the bucket has no profile.
    """
    if bucket not in buckets:
        raise EngineError(f'no profile for {bucket} tokens; the engine has {list(buckets)}')
    return buckets.index(bucket)
