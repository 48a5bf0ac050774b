"""`lightvla bench`: measures the time of the node, of the engines and of a GPU."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lightvla_ros.cli import bench_delays, bench_methods
from lightvla_ros.cli.arguments import add_no_compile, number, parse_count
from lightvla_ros.errors import ArgumentError
from lightvla_ros.files import BUNDLED_POLICY, resource, write_text
from lightvla_ros.policy.tolerances import TOLERANCES

if TYPE_CHECKING:
    from lightvla_ros.bench.engines import PolicyBench
    from lightvla_ros.bench.layers import LayerBench

POLICY_ROUNDS, PRESET_ROUNDS = 100, 10
ONLY = {
    'policy': ('engine', 'provider'),
    'preset': ('layers', 'text', 'precision'),
}  # options of one of both


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what can be measured, each with its options."""
    benches = parser.add_subparsers(
        dest='bench', required=True, metavar='WHAT', help='what is measured'
    )
    for name, text, declare, work in (
        ('node', 'the time that the policy node adds to that of the engine', _add_node, _run_node),
        (
            'executor',
            'the time from a chunk to the first command, and the jitter of the commands',
            _add_executor,
            _run_executor,
        ),
        ('soak', 'whether the nodes grow, or miss anything, in a long run', _add_soak, _run_soak),
        (
            'delays',
            'episodes whose observations come late',
            bench_delays.add_arguments,
            bench_delays.run,
        ),
        ('engine', 'the time of a chunk on each engine, pruned and not', _add_engine, _run_engine),
        (
            'methods',
            'the time of a chunk with each compared method, and of other policies',
            bench_methods.add_arguments,
            bench_methods.run,
        ),
        ('gpu', 'a chunk on a GPU, against the limits of the same GPU', _add_gpu, _run_gpu),
    ):
        bench = benches.add_parser(name, help=text, description=f'Measures {text}.')
        bench.set_defaults(prog=bench.prog, work=work)
        declare(bench)


def run(parsed: argparse.Namespace) -> int:
    """Measure and print."""
    return parsed.work(parsed)


def _add_node(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--policy', type=Path, metavar='DIR', help='policy folder; default: the bundled one'
    )
    parser.add_argument(
        '--threads',
        type=parse_count,
        default=1,
        metavar='N',
        help='threads of the engine; default: 1',
    )
    other = parser.add_mutually_exclusive_group()
    for name, text in (
        ('--record', 'what recording adds: without and with it, alternately, for S seconds each'),
        ('--view', 'the CPU time that the page costs: alternately nobody and somebody looks'),
    ):
        other.add_argument(name, action='store_true', help=text)
    _add_executor(parser)


def _add_executor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--seconds',
        type=number(1, 86400),
        default=30.0,
        metavar='S',
        help='how long to measure; default: 30',
    )
    parser.add_argument('--json', action='store_true', help='print JSON alone')


def _run_executor(parsed: argparse.Namespace) -> int:
    from lightvla_ros.nodes.demo.bench_executor import measure, table

    report = measure(parsed.seconds)
    print(json.dumps(report, indent=2) if parsed.json else table(report))
    return 0


def _add_soak(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--policy', type=Path, metavar='DIR', help='policy folder; default: the bundled one'
    )
    parser.add_argument(
        '--minutes',
        type=number(1, 10_000),
        default=60.0,
        metavar='MIN',
        help='how long, after a first episode; default: 60',
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('out/soak'),
        metavar='DIR',
        help='folder of soak.json and of the logs; default: out/soak',
    )


def _run_soak(parsed: argparse.Namespace) -> int:
    from lightvla_ros.nodes.demo.soak import Soak, faults, table

    policy = parsed.policy or resource(BUNDLED_POLICY)
    report = Soak(policy, parsed.minutes, parsed.out / 'logs').run()
    write_text(parsed.out / 'soak.json', json.dumps(report, indent=2) + '\n')
    print(table(report))
    found = faults(report)
    for line in found:
        print(line)
    return int(bool(found))


def _run_node(parsed: argparse.Namespace) -> int:
    from lightvla_ros.nodes.demo import bench_node as node
    from lightvla_ros.nodes.demo import bench_view as view

    work, show = node.measure, node.table
    if parsed.record:
        work, show = node.measure_recording, node.recording_table
    elif parsed.view:
        work, show = view.measure, view.table
    report = work(parsed.policy or resource(BUNDLED_POLICY), parsed.seconds, parsed.threads)
    print(json.dumps(report, indent=2) if parsed.json else show(report))
    return 0


def _add_engine(parser: argparse.ArgumentParser) -> None:
    subject = parser.add_mutually_exclusive_group(required=True)
    subject.add_argument('--policy', type=Path, metavar='DIR', help='exported policy folder')
    subject.add_argument(
        '--preset', metavar='NAME', help="a model's language layers, with random weights"
    )
    parser.add_argument(
        '--rounds',
        type=int,
        metavar='N',
        help=f'rounds that are measured; default: {POLICY_ROUNDS}, with --preset {PRESET_ROUNDS}',
    )
    parser.add_argument(
        '--threads', type=int, default=1, metavar='N', help='threads of each engine; default: 1'
    )
    parser.add_argument(
        '--kept',
        type=int,
        nargs='+',
        metavar='K',
        help='kept visual tokens of a pruned chunk; default: the mean of the golden observations; '
        'with --preset one number or more; default there: all tokens, and 15 per cent of them',
    )
    parser.add_argument('--engine', metavar='NAME', help='with --policy: only engines of this name')
    parser.add_argument(
        '--provider',
        metavar='NAME',
        help='with --policy: only this execution provider of onnxruntime, such as '
        'CUDAExecutionProvider',
    )
    parser.add_argument(
        '--layers', type=int, metavar='N', help='with --preset: only the first N; default: all'
    )
    parser.add_argument(
        '--text',
        type=int,
        metavar='N',
        help='with --preset: text tokens, which are BOS, the words and the stop token; default: 35',
    )
    parser.add_argument(
        '--precision',
        choices=('bf16', 'fp32'),
        help='with --preset: what the layers compute in; default: bf16',
    )
    parser.add_argument('--json', action='store_true', help='print JSON alone')


def _run_engine(parsed: argparse.Namespace) -> int:
    from lightvla_ros.bench.engines import measure_policy
    from lightvla_ros.bench.layers import measure_layers
    from lightvla_ros.bench.report import layer_report, policy_report

    _check(parsed)
    if parsed.policy is not None:
        document, report = measure_policy(_policy_options(parsed)), policy_report
    else:
        document, report = measure_layers(_preset_options(parsed)), layer_report
    print(json.dumps(document, indent=2) if parsed.json else report(document))
    return 0


def _add_gpu(parser: argparse.ArgumentParser) -> None:
    subject = parser.add_mutually_exclusive_group()
    subject.add_argument('--policy', type=Path, metavar='DIR', help='policy folder with weights')
    subject.add_argument(
        '--preset', metavar='NAME', help='random weights of a model; default: openvla-oft-7b'
    )
    parser.add_argument(
        '--precision',
        nargs='+',
        choices=tuple(TOLERANCES),
        default=['bf16', 'fp8', 'fp16', 'fp32'],
        help='precisions; the first is measured in every bucket; default: all',
    )
    parser.add_argument(
        '--kept',
        type=parse_count,
        metavar='K',
        help='visual tokens of a pruned chunk; default: 80 of 512, or as many of other numbers',
    )
    parser.add_argument(
        '--rounds', type=parse_count, default=200, metavar='N', help='chunks; default: 200'
    )
    add_no_compile(parser)
    parser.add_argument(
        '--device',
        choices=('cuda', 'cpu'),
        default='cuda',
        help='cpu: a dry run, whose figures say nothing about a GPU; default: cuda',
    )
    parser.add_argument(
        '--out', type=Path, metavar='FILE.json', help='write the figures, and FILE.png beside it'
    )


def _run_gpu(parsed: argparse.Namespace) -> int:
    from lightvla_ros.bench.gpu import GpuBench, measure_gpu
    from lightvla_ros.bench.gpu_report import gpu_report, write_plot

    preset = None if parsed.policy else parsed.preset or 'openvla-oft-7b'
    options = GpuBench(
        preset=preset,
        policy=parsed.policy,
        precisions=tuple(dict.fromkeys(parsed.precision)),
        rounds=parsed.rounds,
        kept=parsed.kept,
        compiled=parsed.compiled,
        device=parsed.device,
    )
    if parsed.out is not None and parsed.out.suffix != '.json':
        raise ArgumentError(f'--out {parsed.out}: give a name that ends in .json')
    if parsed.out is not None:
        parsed.out.parent.mkdir(parents=True, exist_ok=True)  # it fails before the measurement
    document = measure_gpu(options, lambda line: print(line, file=sys.stderr, flush=True))
    print(gpu_report(document))
    if parsed.out is not None:
        write_text(parsed.out, json.dumps(document, indent=2) + '\n')
        write_plot(document, parsed.out.with_suffix('.png'))
    return 0


def _check(parsed: argparse.Namespace) -> None:
    """Refuse options that are invalid or do not apply to the measurement.

    :raises ArgumentError: Naming the option.
    """
    for name in ('rounds', 'threads'):
        value = getattr(parsed, name)
        if value is not None and value < 1:
            raise ArgumentError(f'--{name} {value}: give at least 1')
    for subject, names in ONLY.items():
        for name in names:
            if getattr(parsed, subject) is None and getattr(parsed, name) is not None:
                raise ArgumentError(f'--{name} works only with --{subject}')
    if parsed.policy is not None and parsed.kept is not None and len(parsed.kept) > 1:
        raise ArgumentError(
            '--kept takes only one number with --policy; every bucket is measured anyway'
        )


def _policy_options(parsed: argparse.Namespace) -> PolicyBench:
    from lightvla_ros.bench.engines import PolicyBench

    return PolicyBench(
        policy=parsed.policy,
        rounds=parsed.rounds or POLICY_ROUNDS,
        threads=parsed.threads,
        kept=parsed.kept[0] if parsed.kept is not None else None,
        engine=parsed.engine,
        provider=parsed.provider,
    )


def _preset_options(parsed: argparse.Namespace) -> LayerBench:
    from lightvla_ros.bench.layers import LayerBench

    given = {name: getattr(parsed, name) for name in ONLY['preset']}
    return LayerBench(
        preset=parsed.preset,
        rounds=parsed.rounds or PRESET_ROUNDS,
        threads=parsed.threads,
        kept=tuple(parsed.kept) if parsed.kept is not None else None,
        **{name: value for name, value in given.items() if value is not None},
    )
