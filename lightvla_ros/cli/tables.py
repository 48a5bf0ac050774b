"""`lightvla tables`: runs the rows of a table of evaluations, and prints the table.

The policies that a table trains for its rows are trained first, each where it is missing.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from lightvla_ros.cli import evaluate, train
from lightvla_ros.cli.arguments import parse_count, parse_range
from lightvla_ros.errors import ArgumentError
from lightvla_ros.files import write_text

if TYPE_CHECKING:
    from lightvla_ros.evaluate.tables import TablePlan
    from lightvla_ros.train.config import TrainConfig

POLICIES = 'policies'  # the folder of the trained policies, below --out


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``lightvla tables``."""
    parser.set_defaults(stopped='stopped; run the same command again to continue')
    parser.add_argument('plan', type=Path, metavar='FILE', help='a file of config/tables')
    parser.add_argument(
        '--out',
        type=Path,
        required=True,
        metavar='DIR',
        help="the rows' results and journals, which are resumed, and table.md",
    )
    parser.add_argument('--policy', type=Path, metavar='DIR', help='policy folder of all rows')
    parser.add_argument(
        '--rows', nargs='+', metavar='ROW', help='run these, in this order; default: all'
    )
    parser.add_argument(
        '--inits',
        type=parse_range,
        metavar='A-B',
        help='saved initial states, such as 0-4; default: those of the file',
    )
    parser.add_argument(
        '--workers', type=parse_count, metavar='N', default=1, help='worker processes; default: 1'
    )
    part = parser.add_mutually_exclusive_group()
    part.add_argument(
        '--train-only', action='store_true', help='train the policies of the rows, and stop'
    )
    part.add_argument('--show', action='store_true', help='run nothing; print what there is')
    parser.add_argument(
        '--plot', type=Path, metavar='FILE.png', help='also draw success against FLOPs'
    )
    parser.add_argument(
        '--beside',
        type=Path,
        nargs='+',
        default=[],
        metavar='FILE.json',
        help="results of other tables' rows, for the plot",
    )


def run(parsed: argparse.Namespace) -> int:
    """Run the rows that are asked for, and print and write the table.

    :returns: 0; 1 when an episode is an error; 2 when training was stopped. The same command
        continues.
    :raises ArgumentError: When there is no such row, or a row's options are wrong.
    :raises ConfigError: When a policy's configuration is wrong.
    :raises TrainError: When a policy was trained by another configuration than it has now.
    """
    from lightvla_ros.evaluate.tables import read_plan, result_path, table

    plan = read_plan(parsed.plan)
    rows = parsed.rows or list(plan.rows)
    if unknown := [row for row in rows if row not in plan.rows]:
        raise ArgumentError(f'--rows: {parsed.plan} has no {unknown[0]}; {", ".join(plan.rows)}')
    if plan.policies and parsed.policy:
        raise ArgumentError(
            f'--policy: {parsed.plan} trains the policies of its rows; leave it out'
        )
    if parsed.beside and not parsed.plot:
        raise ArgumentError('--beside is for the plot; give --plot FILE.png, too')
    code = 0
    commands = []
    if not parsed.show:
        # all rows are parsed before the first one runs for an hour
        commands = [(row, _parse(parsed, plan.arguments(row))) for row in rows]
        if not _train(parsed, plan, rows):
            return 2
    if parsed.train_only:
        return 0
    for row, command in commands:
        command.json = result_path(parsed.out, row)
        print(f'{row}:', flush=True)
        code |= evaluate.run(command)
    text = table(plan, parsed.out)
    parsed.out.mkdir(parents=True, exist_ok=True)
    write_text(parsed.out / 'table.md', text + '\n')
    print(text)
    if parsed.plot:
        rows_found = [path for row in plan.rows if (path := result_path(parsed.out, row)).exists()]
        _plot([*rows_found, *parsed.beside], parsed.plot)
    return code


def _plot(paths: list[Path], plot: Path) -> None:
    from lightvla_ros.evaluate.result import read_document
    from lightvla_ros.show.plots import write_success_and_flops

    results = {path.stem: read_document(path) for path in paths}
    plot.parent.mkdir(parents=True, exist_ok=True)
    write_success_and_flops(results, plot)


def _train(parsed: argparse.Namespace, plan: TablePlan, rows: list[str]) -> bool:
    """Train the policies that rows need and that are not there; return whether all are.

    A run that was stopped continues.
    """
    from lightvla_ros.evaluate.tables import in_folder
    from lightvla_ros.train.config_file import read_config

    folder = parsed.out / POLICIES
    # all configurations are read before the first run
    configs = {
        name: read_config(
            parsed.plan.parent / plan.training, in_folder(plan.policies[name], folder)
        )
        for name in plan.needed(rows)
    }
    return all(_train_one(config, folder / name) for name, config in configs.items())


def _train_one(config: TrainConfig, out: Path) -> bool:
    from lightvla_ros.train.checkpoint import CHECKPOINT, check_same, load_checkpoint

    checkpoint = out / CHECKPOINT
    if (out / 'policy').exists():
        check_same(checkpoint, load_checkpoint(checkpoint)['config'], config.to_dict())
        return True
    print(f'training {out.name}:', flush=True)
    return train.train(config, out, resume=checkpoint.exists())


def _parse(parsed: argparse.Namespace, arguments: list[str]) -> argparse.Namespace:
    from lightvla_ros.evaluate.tables import in_folder

    arguments = in_folder(arguments, parsed.out / POLICIES)
    parser = argparse.ArgumentParser(prog=f'lightvla tables: {parsed.plan}', exit_on_error=False)
    evaluate.add_arguments(parser)
    try:
        command, unknown = parser.parse_known_args([*arguments, '--json', 'row.json'])
    except argparse.ArgumentError as error:
        raise ArgumentError(f'{parsed.plan}: {error}') from None
    if unknown:
        raise ArgumentError(f'{parsed.plan}: an evaluation has no option {unknown[0]}')
    command.workers = parsed.workers
    command.policy = parsed.policy or command.policy
    command.inits = parsed.inits or command.inits
    evaluate.options_from(command)  # refuses episodes that do not exist
    return command
