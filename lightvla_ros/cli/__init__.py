"""The command `lightvla`."""

from __future__ import annotations

import argparse
from pathlib import Path

from lightvla_ros import __version__
from lightvla_ros.cli.arguments import number, parse_count
from lightvla_ros.cli.exit_code import exit_code


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run what it asks for; return the exit code."""
    parser = make_parser()
    parsed = parser.parse_args(arguments)
    if parsed.command is None:
        parser.print_help()
        return 0
    return exit_code(parsed.prog, lambda: parsed.run(parsed), parsed.stopped)


def make_parser() -> argparse.ArgumentParser:
    """Declare all commands; each imports what it needs when it is run, and so needs no ROS here."""
    parser = argparse.ArgumentParser(prog='lightvla', description=__doc__)
    parser.add_argument('--version', action='version', version=f'lightvla {__version__}')
    commands = parser.add_subparsers(dest='command')
    for name, text, declare in (
        ('demo', 'run episodes in LIBERO through the real ROS graph', _declare_demo),
        ('eval', 'how often a policy solves the tasks of LIBERO', _declare_eval),
        ('compare', 'two results of eval, on the same episodes', _declare_compare),
        ('listen', 'whether a policy goes for what it is told', _declare_listen),
        ('show', 'pictures and figures of what a policy keeps', _declare_show),
        ('bench', 'measure what the node costs', _declare_bench),
        ('import', 'turn a downloaded checkpoint into a policy folder', _declare_import),
        ('flops', 'count what a chunk costs, kept tokens and all', _declare_flops),
        ('verify', 'whether the engines of a policy compute what was trained', _declare_verify),
        ('plan', 'the physical limit on a GPU, and which engine to build there', _declare_plan),
        ('reference', 'print the tables of topics, parameters and reasons', _declare_reference),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(prog=command.prog, stopped='stopped')
        command.set_defaults(run=declare(command))
    return parser


def _declare_demo(parser: argparse.ArgumentParser):
    from lightvla_ros.cli import demo

    demo.add_arguments(parser)

    def run(parsed: argparse.Namespace) -> int:
        options = demo.options_from(parsed)
        from lightvla_ros.nodes.demo.run import run_demo

        return run_demo(options)

    return run


def _declare_eval(parser: argparse.ArgumentParser):
    from lightvla_ros.cli import evaluate

    evaluate.add_arguments(parser)
    return evaluate.run


def _declare_compare(parser: argparse.ArgumentParser):
    parser.add_argument('first', type=Path, metavar='A', help='a result of lightvla eval')
    parser.add_argument('second', type=Path, metavar='B', help='another one')
    parser.add_argument(
        '--shared', action='store_true', help='compare the episodes that both have, however few'
    )
    parser.add_argument('--json', action='store_true', help='print JSON alone')

    def run(parsed: argparse.Namespace) -> int:
        from lightvla_ros.evaluate import compare

        return compare.run(parsed)

    return run


def _declare_listen(parser: argparse.ArgumentParser):
    from lightvla_ros.cli import listen

    listen.add_arguments(parser)
    return listen.run


def _declare_show(parser: argparse.ArgumentParser):
    from lightvla_ros.cli import show

    show.add_arguments(parser)
    return show.run


def _declare_bench(parser: argparse.ArgumentParser):
    benches = parser.add_subparsers(dest='bench', required=True)
    node = benches.add_parser('node', help='what the policy node adds outside the engine')
    node.add_argument('--policy', type=Path, help='policy folder; default: the bundled one')
    node.add_argument('--seconds', type=number(1, 86400), default=30.0, help='default: 30')
    node.add_argument('--threads', type=parse_count, default=1, help='of the engine; default: 1')
    node.add_argument('--json', action='store_true', help='print JSON alone')
    node.set_defaults(prog=node.prog)
    engine = benches.add_parser('engine', help='what engines take for a chunk, pruned and not')

    from lightvla_ros.cli import bench

    bench.add_arguments(engine)
    engine.set_defaults(prog=engine.prog)

    def run(parsed: argparse.Namespace) -> int:
        if parsed.bench == 'engine':
            return bench.run(parsed)
        from lightvla_ros.nodes.demo import bench_node

        return bench_node.run_bench(parsed)

    return run


def _declare_import(parser: argparse.ArgumentParser):
    parser.add_argument(
        '--checkpoint', required=True, metavar='DIR', help='a published folder, as downloaded'
    )
    parser.add_argument('--out', required=True, metavar='DIR')
    parser.add_argument('--unnorm-key', metavar='KEY', help='of dataset_statistics.json')
    parser.add_argument(
        '--pruning',
        choices=('lightvla', 'off'),
        default='lightvla',
        help='off for OpenVLA-OFT; the weights do not tell',
    )
    parser.add_argument(
        '--action-slice',
        choices=('training', 'release'),
        default='training',
        help='which hidden states the head reads',
    )
    parser.add_argument('--base', metavar='DIR', help='base model of a folder with only an adapter')

    def run(parsed: argparse.Namespace) -> int:
        from lightvla_ros.export import import_checkpoint

        return import_checkpoint.run(parsed)

    return run


def _declare_flops(parser: argparse.ArgumentParser):
    parser.add_argument('--preset', default='openvla-oft-7b', help='default: openvla-oft-7b')
    parser.add_argument('--policy', type=Path, metavar='DIR', help='a policy folder with weights')
    parser.add_argument(
        '--kept', type=parse_count, nargs='+', metavar='K', help='visual tokens kept'
    )
    parser.add_argument('--text', type=parse_count, default=35, help='BOS, words and stop')
    parser.add_argument('--json', action='store_true')

    def run(parsed: argparse.Namespace) -> int:
        from lightvla_ros.vla import flops

        return flops.run(parsed)

    return run


def _declare_verify(parser: argparse.ArgumentParser):
    from lightvla_ros.engine import ENGINES
    from lightvla_ros.verify.tolerances import TOLERANCES

    parser.add_argument('policy', type=Path, metavar='POLICY')
    parser.add_argument('--engine', choices=ENGINES, help='only engines of this name')
    parser.add_argument(
        '--precision',
        choices=tuple(TOLERANCES),
        help="an engine's; default: that of the folder",
    )
    parser.add_argument(
        '--count', type=int, default=8, help='random observations besides the golden ones'
    )
    parser.add_argument('--threads', type=parse_count, default=1, help='of each engine; default: 1')
    parser.add_argument('--json', action='store_true')

    def run(parsed: argparse.Namespace) -> int:
        from lightvla_ros.cli import verify

        return verify.run(parsed)

    return run


def _declare_plan(parser: argparse.ArgumentParser):
    from lightvla_ros.cli import plan

    plan.add_arguments(parser)
    return plan.run


def _declare_reference(parser: argparse.ArgumentParser):
    parser.add_argument('--update', metavar='FILE', help='write the tables into this file instead')

    def run(parsed: argparse.Namespace) -> int:
        from lightvla_ros.nodes.reference import print_reference

        return print_reference(parsed.update)

    return run
