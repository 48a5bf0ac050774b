"""Estimates of disk, memory and time, printed before an export or a build and by a dry run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from lightvla_ros.contract import Manifest
from lightvla_ros.vla.config import VLAConfig, act_flops

BYTES = {'fp32': 4, 'fp16': 2, 'bf16': 2}
SECONDS, SECONDS_PER_GB = 20, 10  # to trace and write, measured on two cores


def export_estimate(
    config: VLAConfig, precision: str | None, buckets: Sequence[int], context: int, copied: bool
) -> list[str]:
    """Return lines that estimate the export of a model's graphs.

    :param precision: Of the graphs; None if none are written.
    :param context: Number of tokens in the sequence that are not visual tokens.
    :param copied: Whether the weights are copied (from a checkpoint) instead of linked.
    """
    from lightvla_ros.vla.weights import used_shapes  # needs PyTorch

    sizes = {'encode': 0, 'act': 0, 'embedding': 0}
    parameters = 0
    for name, shape in used_shapes(config).items():
        part = 'act' if name.startswith(('language_model', 'action_head')) else 'encode'
        part = 'embedding' if 'embed_tokens' in name else part
        if precision is not None:
            sizes[part] += math.prod(shape) * (4 if part == 'embedding' else BYTES[precision])
        parameters += math.prod(shape)
    ladder = '  buckets    ' + ', '.join(
        f'{b} ({act_flops(config, context, b) / 1e12:.3g} TFLOP)' for b in buckets
    )
    if precision is None:
        size = f'{2 * parameters / 1e9:.3f} GB of weights in bf16' if copied else 'links to weights'
        return [f'  disk       {size}', ladder]
    total = sum(sizes.values())
    seconds = SECONDS + SECONDS_PER_GB * total / 1e9
    weights = 'hard links to the weights, if the file system supports them'
    if copied:
        weights = f'{2 * parameters / 1e9:.3f} GB of weights in bf16 (temporary with --no-weights)'
    return [
        *(f'  {name:10} {size / 1e9:8.3f} GB' for name, size in sizes.items()),
        f'  disk       {total / 1e9:8.3f} GB, and {weights}',
        f'  memory     about {total / 1e9 + 1:.0f} GB, most of it mapped files',
        f'  time       about {seconds:.0f} s for the graphs, without import, golden answers and '
        'engines',
        ladder,
    ]


def build_estimate(
    policy_dir: Path, manifest: Manifest, target: str, workspace: int | None
) -> list[str]:
    """Return lines that estimate the build of engines for an exported folder."""
    graphs = manifest.graphs
    sizes = {
        name: sum((policy_dir / file).stat().st_size for file in manifest.files if file in names)
        for name in (graphs.encode, graphs.act)
        for names in [(name, f'{name}.data')]
    }
    limit = 'unlimited' if workspace is None else f'{workspace} MiB per layer'
    return [
        f'{policy_dir}: engines for {target}',
        *(f'  {name:12} {size / 1e9:8.3f} GB' for name, size in sizes.items()),
        f'  profiles of {graphs.act}: {", ".join(map(str, manifest.tokens.buckets))}',
        f'  disk and memory: about {sum(sizes.values()) / 1e9:.3f} GB more; workspace: {limit}',
    ]
