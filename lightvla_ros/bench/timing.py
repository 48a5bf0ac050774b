"""Timing: alternating turns, statistics, and the machine's own matrix rate as a yardstick."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from lightvla_ros.summary_statistics import percentiles

SIDE = 1024  # of the square matrices: 3 x 4 MiB in fp32, more than a core's own caches


def take_turns(
    contestants: Mapping[Hashable, Callable[[int], Any]], rounds: int, warm_up: int
) -> dict[Hashable, list[Any]]:
    """Call every contestant once a round, with the number of the round.

    They take turns, so that a drift of the machine hits all alike.

    :param rounds: Rounds that count.
    :param warm_up: Rounds before them, whose results are thrown away.
    :returns: ``rounds`` results of each contestant.
    """
    results: dict[Hashable, list[Any]] = {name: [] for name in contestants}
    for number in range(warm_up + rounds):
        for name in rotated(list(contestants), number):
            result = contestants[name](number)
            if number >= warm_up:
                results[name].append(result)
    return results


def rotated(items: Sequence[Any], number: int) -> list[Any]:
    """Return the items rotated, so that each number begins with another item."""
    start = number % len(items)
    return [*items[start:], *items[:start]]


def percentiles_ms(seconds: Sequence[float]) -> dict[str, float]:
    """Turn samples in seconds into percentiles in milliseconds."""
    found = percentiles(seconds, ('min', 'p50', 'p95', 'p99', 'max'))
    return {name: round(each * 1e3, 4) for name, each in found.items()}


def ratio_p50(these: Sequence[float], those: Sequence[float]) -> float:
    """Divide the median of the first samples by the median of the second."""
    return round(float(np.median(these) / np.median(those)), 4)


class MatrixProduct:
    """A product of two square matrices, by PyTorch where it is installed and else by NumPy.

    :param precision: ``fp32`` or ``bf16``; bf16 needs PyTorch.
    :param threads: Threads to multiply with.
    """

    def __init__(self, precision: str, threads: int) -> None:
        self.precision = precision
        self._multiply = (_torch_product if has_torch() else _numpy_product)(precision, threads)

    def time(self, _: int = 0) -> float:
        """Multiply once; return the seconds it took. It takes turns (``timing.py``)."""
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
