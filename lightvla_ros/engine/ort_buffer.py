"""A tensor that an ONNX Runtime session reads or writes, allocated once."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort

from lightvla_ros.errors import EngineError


class OrtBuffer:
    """Memory on a device; on the CPU also an array of it.

    :param dtype: NumPy's name of the number type.
    :param device: ``cpu`` or ``cuda``.
    """

    def __init__(self, name: str, dtype: str, shape: tuple[int, ...], device: str) -> None:
        self.name = name
        self.dtype = np.dtype(dtype)
        self.shape = shape
        self.value = ort.OrtValue.ortvalue_from_shape_and_type(shape, self.dtype, device, 0)
        self.array = self.value.numpy() if device == 'cpu' else None  # a view, not a copy

    def write(self, values: np.ndarray) -> None:
        """Put values in.

        :raises EngineError: When their shape is another.
        """
        check_shape(self.name, values, self.shape)
        if self.array is not None:
            np.copyto(self.array, values)
        else:
            self.value.update_inplace(np.ascontiguousarray(values))

    def read(self) -> np.ndarray:
        """Return the values; on the CPU a view of them."""
        return self.value.numpy() if self.array is None else self.array


def check_shape(name: str, values: np.ndarray, shape: tuple[int, ...]) -> None:
    """Refuse an array of another shape.

    :raises EngineError: Naming both.
    """
    if values.shape != shape:
        raise EngineError(f'{name} is {list(values.shape)}, the graph takes {list(shape)}')
