"""GPUs with the peaks of their data sheets, and what was measured on them: `lightvla plan`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lightvla_ros.errors import ArgumentError


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    :param name: As printed.
    :param peaks: Dense tensor peak of each number type [TFLOP/s], without sparsity, accumulating
        in fp32 (int32); the first is the 16-bit type.
    :param bandwidth: Peak bandwidth of its memory [GB/s, 1e9 bytes].
    :param memory: Nominal size of its memory [GiB]; None when no source at hand says it.
    :param aliases: Other names, ``nvidia-smi``'s among them.
    :param note: Limitation of the figures above.
    :param measured: Measured results of engines, with the date; empty if there are none.
    """

    name: str
    peaks: dict[str, float]
    bandwidth: float
    memory: float | None
    aliases: tuple[str, ...] = ()
    note: str = ''
    measured: tuple[str, ...] = ()


# Peaks and bandwidths are those of the vendor's data sheets (``docs/explanation/engines.md``); the
# fp8 peak of H20, H100 and RTX 4090 is twice the 16-bit one. Memory of H20 and H100:
# docs.nvidia.com/datacenter/tesla/mig-user-guide/supported-gpus.html; of the RTX 4090: its data
# sheet; of the Orin: its name. That guide has no figure for Thor ("Unified (N/A)"), hence None.
GPUS = (
    Gpu('H20', {'bf16': 148, 'fp8': 296}, 4000, 96),
    Gpu(
        'H100 SXM',
        {'bf16': 989, 'fp8': 1978},
        3350,
        80,
        ('H100', 'H100 SXM5', 'H100 80GB HBM3'),
    ),
    Gpu(
        'H200 SXM',
        {'bf16': 989, 'fp8': 1978},
        4800,
        140,
        ('H200', 'H200 141GB HBM3e'),
        measured=(
            '2026-11-26, one H200, torch 2.11, bf16, openvla-oft-7b with random weights: '
            'products reach 790 TFLOP/s, copies 4223 GB/s',
            'a prototype with CUDA graphs, fused weights and compiled blocks: 9.59 ms with 80 kept '
            'tokens, 17.56 ms with all 512 (ratio 0.546), which is 43 % and 64 % of the limit at '
            'those rates',
            'the same modules in CUDA graphs as they are: 14.42 and 22.86 ms (0.631); without '
            'graphs, where launches take the time: 78.8 ms, and pruning gains nothing',
            '2026-11-29, one H200, bench gpu: torch-cuda takes 9.73 ms with 80 kept tokens, '
            '17.48 ms with all 512 in bf16 (ratio 0.557), 7.28 and 11.99 ms in fp8 (0.608)',
        ),
    ),
    Gpu('RTX 4090', {'bf16': 165, 'fp8': 330}, 1008, 24, ('4090',)),
    Gpu(
        'AGX Orin 64',
        {'fp16': 42.5, 'int8': 85},
        204.8,
        64,
        ('AGX Orin 64GB',),
        'the CPU shares the memory, and the clock throttles with heat and power mode',
    ),
    Gpu(
        'AGX Thor',
        {'bf16': 258, 'fp8': 517, 'fp4': 1035},
        273,
        None,
        ('Thor',),
        'the CPU shares the memory; FlashRT, a public engine, measured about 225 GB/s of it',
    ),
)


def find_gpu(name: str) -> Gpu:
    """Return the GPU of that name or alias; case, spaces, dashes and makers' names do not matter.

    :raises ArgumentError: When there is none; the message lists the names.
    """
    for gpu in GPUS:
        if _key(name) in map(_key, (gpu.name, *gpu.aliases)):
            return gpu
    raise ArgumentError(f'GPU {name!r} is not known: use one of {", ".join(g.name for g in GPUS)}')


def _key(name: str) -> str:
    return re.sub(r'nvidia|geforce|jetson|[^a-z0-9]', '', name.lower())
