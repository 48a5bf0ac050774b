"""The machine's own matrix rate: what a plain large product reaches, as a yardstick for engines."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence

import numpy as np
from threadpoolctl import threadpool_limits

SIDE = 1024  # of the square matrices: 3 x 4 MiB in fp32, more than a core's own caches


class MatrixProduct:
    """A product of two square matrices, by PyTorch where it is installed and else by NumPy.

    :param precision: ``fp32`` or ``bf16``; bf16 needs PyTorch.
    :param threads: Threads to multiply with.
    """

    def __init__(self, precision: str, threads: int) -> None:
        self.precision = precision
        self._multiply = (_torch_product if has_torch() else _numpy_product)(precision, threads)

    def time(self, _: int = 0) -> float:
        """Multiply once; return the seconds it took. It takes turns (``turns.py``)."""
        started = time.perf_counter()
        self._multiply()
        return time.perf_counter() - started


def has_torch() -> bool:
    """Whether PyTorch is installed."""
    return importlib.util.find_spec('torch') is not None


def gflop_per_second(seconds: Sequence[float]) -> float:
    """Return the rate of the median product [GFLOP/s], with 2 FLOPs per multiply-add."""
    return round(2 * SIDE**3 / float(np.median(seconds)) / 1e9, 2)


def _torch_product(precision: str, threads: int) -> Callable[[], object]:
    import torch

    torch.set_num_threads(threads)
    number = {'fp32': torch.float32, 'bf16': torch.bfloat16}[precision]
    left, right = torch.ones(2, SIDE, SIDE, dtype=number)
    out = torch.empty_like(left)
    # transposed, as the weights of a layer lie: other kernels than for a plain product
    return lambda: torch.mm(left, right.t(), out=out)


def _numpy_product(precision: str, threads: int) -> Callable[[], object]:
    if precision != 'fp32':
        raise ValueError(f'NumPy has no {precision}')
    threadpool_limits(threads, user_api='blas')
    left, right = np.ones((2, SIDE, SIDE), np.float32)
    out = np.empty_like(left)
    return lambda: np.matmul(left, right, out=out)
