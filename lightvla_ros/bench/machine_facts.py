"""The machine that figures are of, and whether it had anything else to do."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIBRARIES = ('lightvla_ros', 'onnxruntime', 'openvino', 'tensorrt', 'torch', 'numpy')
BUSY = 0.5  # load average above which somebody else is at work
WARNING = 'the machine was not idle: ratios of medians may stand, times and tails do not'
BF16_FLAGS = {'amx_bf16', 'avx512_bf16', 'bf16'}  # the last one is Arm's


def machine_facts(threads: int) -> dict[str, Any]:
    """Describe processor, memory, threads that are measured with, and versions."""
    pages = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    return {
        'cpu': _cpuinfo('model name') or platform.processor(),
        'cores': os.cpu_count() or 0,
        'memory_gib': round(pages / 2**30, 1),
        'system': platform.platform(),
        'python': platform.python_version(),
        'bf16': has_bf16(),
        'threads': threads,
        'versions': {name: found for name in LIBRARIES if (found := _version(name))},
    }


class LoadWatch:
    """Load averages before and after a measurement.

    :param threads: That the measurement runs, and may add.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._before = os.getloadavg()[0]

    def report(self) -> dict[str, Any]:
        """Return the load ``before`` and ``after``, and a ``warning`` or None."""
        after = os.getloadavg()[0]
        busy = not_idle(self._before, after, self._threads)
        return {
            'before': round(self._before, 2),
            'after': round(after, 2),
            'warning': WARNING if busy else None,
        }


def not_idle(before: float, after: float, threads: int) -> bool:
    """Whether load averages tell of others at work, besides ``threads`` of our own at the end."""
    return before > BUSY or after > threads + BUSY


def has_bf16() -> bool:
    """Whether the processor multiplies bf16 itself. Without that, libraries emulate it slowly."""
    flags = _cpuinfo('flags') or _cpuinfo('Features')  # on x86 and on Arm
    return bool(BF16_FLAGS & set(flags.split()))


def available_memory() -> int:
    """Bytes that can be used without swapping."""
    meminfo = Path('/proc/meminfo')
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith('MemAvailable:'):
                return int(line.split()[1]) * 1024
    return os.sysconf('SC_AVPHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')


def _cpuinfo(field: str) -> str:
    """Return a field of the first processor in /proc/cpuinfo; empty where there is none."""
    path = Path('/proc/cpuinfo')
    for line in path.read_text().splitlines() if path.exists() else ():
        name, _, value = line.partition(':')
        if name.strip() == field:
            return value.strip()
    return ''


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
