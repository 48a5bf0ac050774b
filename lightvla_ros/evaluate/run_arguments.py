"""How episodes are run, on the command lines of ``lightvla eval``, ``show`` and ``listen``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from lightvla_ros.arguments import check_episodes, parse_count, parse_range, parse_seed
from lightvla_ros.contract.libero import EXPERT_SUITES
from lightvla_ros.engine import ENGINES
from lightvla_ros.sim.episode import EpisodeSpec

if TYPE_CHECKING:
    from lightvla_ros.evaluate.episodes import EvalOptions


def add_run_arguments(parser: argparse.ArgumentParser, suites: tuple[str, ...]) -> None:
    """Declare policy, episodes and conditions.

    :param suites: That can be chosen, besides ``all``.
    """
    parser.add_argument('--policy', type=Path, required=True, metavar='DIR', help='policy folder')
    parser.add_argument(
        '--suite',
        choices=(*suites, 'all'),
        default='all',
        help=f'default: all, which is {" and ".join(EXPERT_SUITES)}',
    )
    add_conditions(parser)


def add_conditions(parser: argparse.ArgumentParser) -> None:
    """Declare what every command that runs episodes takes."""
    parser.add_argument(
        '--seed', type=parse_seed, default=0, help="of the fixtures' poses; default: 0"
    )
    parser.add_argument('--render', choices=('cheap', 'standard'), default='cheap')
    parser.add_argument(
        '--replan', type=parse_count, metavar='N', help='steps run of each chunk; default: all'
    )
    parser.add_argument(
        '--max-steps', type=parse_count, metavar='N', help="default: the suite's limit"
    )
    parser.add_argument(
        '--engine', choices=(*ENGINES, 'torch'), default='onnxruntime', help='default: onnxruntime'
    )
    parser.add_argument('--provider', default='CPUExecutionProvider', help='of onnxruntime')
    parser.add_argument('--threads', type=parse_count, default=1, help='per worker; default: 1')
    parser.add_argument(
        '--workers', type=parse_count, default=1, help='processes, 2 GB each; default: 1'
    )


def add_episodes(parser: argparse.ArgumentParser, tasks: str, inits: str) -> None:
    """Declare which tasks and initial states.

    :param tasks: The default, in words.
    :param inits: Likewise.
    """
    for name, words in (('task', tasks), ('init', inits)):
        parser.add_argument(
            f'--{name}s', f'--{name}', type=parse_range, metavar='A-B', help=f'default: {words}'
        )


def eval_options(
    parsed: argparse.Namespace, tasks: tuple[int, ...], inits: tuple[int, ...], out: Path
) -> EvalOptions:
    """Put parsed arguments into what ``lightvla eval`` runs by.

    :param tasks: Where ``--tasks`` was not given.
    :param inits: Where ``--inits`` was not given.
    :raises ArgumentError: When LIBERO has no such episodes.
    """
    from lightvla_ros.evaluate.episodes import Conditions, EvalOptions

    names = ('render', 'replan', 'max_steps', 'engine', 'provider', 'threads')
    suites = EXPERT_SUITES if parsed.suite == 'all' else (parsed.suite,)
    tasks, inits = parsed.tasks or tasks, parsed.inits or inits
    check_episodes(suites, tasks, inits)
    specs = tuple(
        EpisodeSpec(suite, task, init, parsed.seed)
        for suite in suites
        for task in tasks
        for init in inits
    )
    conditions = Conditions(**{name: getattr(parsed, name) for name in names})
    return EvalOptions(parsed.policy, specs, conditions, out, workers=parsed.workers)
