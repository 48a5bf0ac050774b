"""`lightvla plan`: computes the physical limit of a GPU, and the engine to build for it."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict

from lightvla_ros.bench.gpu_plan import (
    TARGET_BANDWIDTH,
    TARGET_FLOPS,
    GpuPlan,
    Precision,
    Recommendation,
    count_costs,
    make_plan,
    precisions,
    recommend,
)
from lightvla_ros.bench.gpus import GPUS, Gpu, find_gpu
from lightvla_ros.cli.arguments import add_preset, parse_count
from lightvla_ros.errors import ArgumentError
from lightvla_ros.vla.config import preset

LABEL = 'physical limit computed from spec-sheet peaks, not a measurement'
GOOD, BEST = 45, 65  # per cent of the limit (our own thresholds: ``docs/explanation/engines.md``)
CACHE_GB = 0.1  # smaller weights may stay in the cache; then bandwidth is not the limit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``lightvla plan``."""
    names = ', '.join(gpu.name for gpu in GPUS)
    parser.add_argument('--gpu', required=True, metavar='NAME', help=f'one of {names}')
    parser.add_argument(
        '--precision', metavar='P', help='only this precision, such as bf16, fp8 or w4a16'
    )
    add_preset(parser)
    parser.add_argument(
        '--kept',
        type=parse_count,
        nargs='+',
        metavar='K',
        help='numbers of kept visual tokens; default: all tokens, and 78',
    )
    parser.add_argument(
        '--measured',
        type=float,
        nargs='+',
        metavar='MS',
        help='measured time of a whole chunk for each --kept, in --precision [ms]',
    )
    parser.add_argument('--json', action='store_true', help='print JSON alone')


def run(parsed: argparse.Namespace) -> int:
    """Print the plan; return the exit code.

    :raises ArgumentError: When the request cannot be met.
    :raises ModuleNotFoundError: Without torch.
    """
    gpu = find_gpu(parsed.gpu)
    wanted = _wanted(gpu, parsed.precision)
    _check_measured(parsed)
    costs = count_costs(preset(parsed.preset), parsed.kept, parsed.text)
    kept = parsed.kept or list(costs.tflop)
    plans = [make_plan(gpu, each, costs, kept, parsed.measured) for each in wanted]
    advice = recommend(gpu, plans, costs)
    warnings = _warnings(plans)
    if parsed.json:
        document = {
            'what': LABEL,
            'preset': parsed.preset,
            'text': parsed.text,
            'gpu': asdict(gpu),
            'plans': [asdict(each) for each in plans],
            'recommended': asdict(advice),
            'warnings': warnings,
        }
        print(json.dumps(document, indent=2))
    else:
        print(_report(gpu, parsed.preset, plans, advice, warnings))
    return 0


def _wanted(gpu: Gpu, name: str | None) -> list[Precision]:
    has = precisions(gpu)
    found = [each for each in has if name is None or each.name == name.lower()]
    if not found:
        names = ', '.join(each.name for each in has)
        raise ArgumentError(
            f'precision {name!r} is not in the table of {gpu.name}: use one of {names}'
        )
    return found


def _check_measured(parsed: argparse.Namespace) -> None:
    measured = parsed.measured
    if not measured:
        return
    if not parsed.precision:
        raise ArgumentError('--measured needs --precision, the precision that was measured')
    if len(measured) != len(parsed.kept or ()):
        raise ArgumentError(
            f'--measured has {len(measured)} times and --kept {len(parsed.kept or ())} counts; '
            'give one time for each count'
        )
    for ms in measured:
        if not (math.isfinite(ms) and ms > 0):
            raise ArgumentError(f'--measured {ms:g}: give a time above 0 [ms]')


def _warnings(plans: Sequence[GpuPlan]) -> list[str]:
    found = []
    for plan in plans:
        if plan.weights_gb < CACHE_GB:
            found.append(
                f'{plan.precision.name}: {plan.weights_gb * 1e3:.0f} MB of weights may stay in the '
                'cache; then a time below a floor set by bandwidth is possible'
            )
        found += [
            f'{row.kept} kept: {row.measured_ms:g} ms is below the floor of {_ms(row.floor_ms)} '
            'ms, which is impossible: a part was not timed (a stage, or the wait for the GPU), or '
            'the precision, the GPU or --kept is not the measured one'
            for row in plan.rows
            if row.percent is not None and row.percent > 100
        ]
    return found


def _report(
    gpu: Gpu,
    preset_name: str,
    plans: Sequence[GpuPlan],
    advice: Recommendation,
    warnings: Sequence[str],
) -> str:
    peaks = ', '.join(f'{name} {peak:g}' for name, peak in gpu.peaks.items())
    memory = 'size of memory not known' if gpu.memory is None else f'{gpu.memory:g} GiB'
    timed = plans[0].rows[0].measured_ms is not None
    lines = [
        f'{preset_name} on {gpu.name}: {LABEL}.',
        f'Dense peaks {peaks} TFLOP/s; {gpu.bandwidth:g} GB/s; {memory}.',
        *([f'Note: {gpu.note}.'] if gpu.note else []),
        *(f'Measured: {each}.' for each in gpu.measured or ('nothing on this GPU',)),
        f'Each cell: floor / target [ms] and what binds. Target: {TARGET_FLOPS:.0%} of peak FLOPs, '
        f'{TARGET_BANDWIDTH:.0%} of bandwidth.',
        'Gain: of pruning, at best. Left out: activations, launches, host.',
        '',
        f'{"precision":9} {"kept":>4} {"tokens":>6}'
        + ''.join(f' {name:>19}' for name in ('vision+projector', 'LLM', 'head'))
        + f' {"total":>13} {"gain":>5}'
        + (f' {"measured":>8} {"of limit":>8}' if timed else ''),
    ]
    for plan in plans:
        for row in plan.rows:
            cells = ''.join(
                f' {_pair(each.floor_ms, each.target_ms):>13} {each.binds}'
                for each in row.stages.values()
            )
            lines.append(
                f'{plan.precision.name:9} {row.kept:4} {row.sequence:6}{cells}'
                f' {_pair(row.floor_ms, row.target_ms):>13} {row.gain:4.1f}x'
                + (f' {row.measured_ms:8g} {row.percent:7.0f}%' if timed else '')
            )
    lines.append('')
    if timed:
        lines += [f'Of the limit: {GOOD}% is good, {BEST}% is what the best published reach.', '']
    for plan in plans:
        lines.append(
            f'{plan.precision.name:9} balance S* {plan.balance_tokens:.0f} tokens; weights '
            f'{plan.weights_gb:.2f} GB, {_fits(plan.copies)}; buckets {_listing(plan.buckets)}'
        )
    if advice.precision:
        lines += ['', f'Choose {advice.precision} with buckets {_listing(advice.buckets)}.']
    return '\n'.join([*lines, *advice.reasons, *(f'WARNING: {each}' for each in warnings)])


def _fits(copies: int | None) -> str:
    if copies is None:
        return 'fit not known'
    if copies == 0:
        return 'do NOT fit'
    return 'fit once: buckets must share them' if copies == 1 else 'fit'


def _pair(floor: float, target: float) -> str:
    return f'{_ms(floor)} / {_ms(target)}'


def _ms(value: float) -> str:
    return f'{value:.1f}' if value >= 10 else f'{value:.2f}'


def _listing(values: Sequence[int]) -> str:
    """Write buckets as ``lightvla export --buckets`` takes them."""
    return ','.join(map(str, values))
