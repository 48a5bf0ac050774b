"""`lightvla bench`: measures the time of the node and of the engines."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from lightvla_ros.cli.arguments import number, parse_count
from lightvla_ros.errors import ArgumentError
from lightvla_ros.files import BUNDLED_POLICY, resource

if TYPE_CHECKING:
    from lightvla_ros.bench.engines import PolicyBench
    from lightvla_ros.bench.layers import LayerBench

POLICY_ROUNDS, PRESET_ROUNDS = 100, 10
ONLY = {
    'policy': ('engine', 'provider'),
    'preset': ('layers', 'text', 'precision'),
}  # options of one of both


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``lightvla bench node`` and ``lightvla bench engine``."""
    benches = parser.add_subparsers(
        dest='bench', required=True, metavar='WHAT', help='what is measured'
    )
    for name, text, declare, work in (
        ('node', 'the time that the policy node adds to that of the engine', _add_node, _run_node),
        ('engine', 'the time of a chunk on each engine, pruned and not', _add_engine, _run_engine),
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
        '--seconds',
        type=number(1, 86400),
        default=30.0,
        metavar='S',
        help='how long to measure; default: 30',
    )
    parser.add_argument(
        '--threads',
        type=parse_count,
        default=1,
        metavar='N',
        help='threads of the engine; default: 1',
    )
    parser.add_argument('--json', action='store_true', help='print JSON alone')


def _run_node(parsed: argparse.Namespace) -> int:
    from lightvla_ros.nodes.demo.bench_node import measure, table

    report = measure(parsed.policy or resource(BUNDLED_POLICY), parsed.seconds, parsed.threads)
    print(json.dumps(report, indent=2) if parsed.json else table(report))
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
