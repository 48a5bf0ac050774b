"""Arguments that several commands share: numbers, and how episodes are run."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from lightvla_ros.contract.suites import EXPERT_SUITES, LIBERO_SUITES, PRO_SUITES, SUITES
from lightvla_ros.engine import ENGINES
from lightvla_ros.errors import ArgumentError
from lightvla_ros.policy.tolerances import TOLERANCES
from lightvla_ros.vla.config import TRAINING_FREE, PrunerConfig

if TYPE_CHECKING:
    from lightvla_ros.evaluate.episodes import EvalOptions
    from lightvla_ros.sim.episode import EpisodeSpec

LARGEST_SEED = 2**31 - 1
MOST = 10_000  # numbers in a list, so that a typing error does not fill the memory


def parse_range(text: str) -> tuple[int, ...]:
    """Parse ``0-3,7`` -> (0, 1, 2, 3, 7).

    :raises argparse.ArgumentTypeError: When it is not such a list, or has a number twice.
    """
    numbers: list[int] = []
    for part in text.split(','):
        match = re.fullmatch(r'(\d{1,9})(?:-(\d{1,9}))?', part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if first > last:
            raise argparse.ArgumentTypeError(f'{text!r} is not a list such as 0-3,7')
        if last - first >= MOST:
            raise argparse.ArgumentTypeError(f'{text!r} has more than {MOST} numbers')
        numbers.extend(range(first, last + 1))
    if len(set(numbers)) < len(numbers):
        raise argparse.ArgumentTypeError(f'{text!r} has a number twice')
    return tuple(numbers)


def parse_count(text: str) -> int:
    """Parse a whole number above 0.

    :raises argparse.ArgumentTypeError: When the text is not such a number.
    """
    if not re.fullmatch(r'\d{1,18}', text, re.ASCII) or int(text) == 0:
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number above 0')
    return int(text)


def parse_seed(text: str) -> int:
    """Parse a whole number from 0 to 2147483647.

    :raises argparse.ArgumentTypeError: When the text is not such a number.
    """
    if not re.fullmatch(r'\d{1,18}', text, re.ASCII) or int(text) > LARGEST_SEED:
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number from 0 to {LARGEST_SEED}')
    return int(text)


def parse_pruning(text: str) -> PrunerConfig:
    """Parse ``lightvla``, ``off``, or a rule with the share of patches that it keeps (``adp:0.3``).

    :raises argparse.ArgumentTypeError: When it is none of these, or the share is impossible.
    """
    if text in ('lightvla', 'off'):
        return PrunerConfig(text)
    method, _, share = text.partition(':')
    if method not in TRAINING_FREE:
        rules = ', '.join(f'{name}:SHARE' for name in TRAINING_FREE)
        raise argparse.ArgumentTypeError(f'{text!r} is none of lightvla, off, {rules}')
    if not re.fullmatch(r'0?\.\d{1,9}', share, re.ASCII) or not float(share):
        raise argparse.ArgumentTypeError(
            f'{text!r}: give the share of patches that {method} keeps, above 0 and below 1, such '
            f'as {method}:0.3'
        )
    return PrunerConfig(method, share=float(share))


def number(low: float, high: float) -> Callable[[str], float]:
    """Return a function that parses a number from ``low`` to ``high``.

    It raises :class:`argparse.ArgumentTypeError` when the text is not such a number.
    """

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:  # also for NaN
            raise argparse.ArgumentTypeError(f'{text!r} is not a number from {low:g} to {high:g}')
        return value

    return parse


def check_episodes(
    suites: Iterable[str], tasks: Iterable[int], inits: Iterable[int] = (0,)
) -> None:
    """Check that LIBERO has the requested tasks and initial states.

    :raises ArgumentError: Naming the first missing task or saved initial state.
    """
    for suite in suites:
        last_task, last_state = SUITES[suite].tasks - 1, SUITES[suite].init_states - 1
        if over := [task for task in tasks if task > last_task]:
            raise ArgumentError(f'--tasks: {suite} has the tasks 0 to {last_task}, not {over[0]}')
        if over := [init for init in inits if init > last_state]:
            raise ArgumentError(
                f'--inits: in {suite} a task has the saved initial states 0 to {last_state}, '
                f'not {over[0]}'
            )


def add_suite(parser: argparse.ArgumentParser, several: bool = False, default: str = 'all') -> None:
    """Declare ``--suite`` with every suite of LIBERO and LIBERO-PRO, listed in groups.

    :param several: Whether more than one may be given; then the value is a list.
    """
    both = f', which is {" and ".join(EXPERT_SUITES)}' if default == 'all' else ''
    group = parser.add_argument_group('suites of tasks', _suites_in_groups())
    group.add_argument(
        '--suite',
        nargs='+' if several else None,
        choices=(*SUITES, 'all') if default == 'all' else tuple(SUITES),
        default=[default] if several else default,
        metavar='SUITE',
        help=f'{"one suite or more" if several else "a suite of tasks"}; default: {default}{both}',
    )


def expand_suites(names: str | Sequence[str]) -> list[str]:
    """Return the suites of ``--suite``, each once and with ``all`` written out."""
    names = [names] if isinstance(names, str) else names
    found = (suite for name in names for suite in (EXPERT_SUITES if name == 'all' else (name,)))
    return list(dict.fromkeys(found))


def _suites_in_groups() -> str:
    groups: dict[str, list[str]] = {}
    for name in PRO_SUITES:
        base, change = re.fullmatch(r'(libero_[a-z0-9]+)_((?:with|temp)_.+|.+)', name).groups()
        groups.setdefault(base, []).append(f'_{change}')
    changes = '; '.join(f'{base} with {", ".join(those)}' for base, those in groups.items())
    return (
        f'LIBERO: {", ".join(LIBERO_SUITES)}. LIBERO-PRO, for evaluation alone: {changes}. '
        '_lan: other words; _task: another request; _swap: other places; _object: other looks; '
        '_temp: shifted by metres; _with: one thing more'
    )


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare policy and conditions."""
    parser.add_argument('--policy', type=Path, required=True, metavar='DIR', help='policy folder')
    add_conditions(parser)


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Declare ``--seed``."""
    parser.add_argument(
        '--seed',
        type=parse_seed,
        default=0,
        metavar='N',
        help="seed of the fixtures' poses; default: 0",
    )


def add_conditions(parser: argparse.ArgumentParser) -> None:
    """Declare the options of every command that runs episodes."""
    add_seed(parser)
    add_render(parser)
    parser.add_argument(
        '--replan',
        type=parse_count,
        metavar='N',
        help='execute N steps of each chunk; default: all',
    )
    parser.add_argument(
        '--max-steps',
        type=parse_count,
        metavar='N',
        help="steps after which an episode ends; default: the suite's limit",
    )
    add_engine(parser, (*ENGINES, 'torch'), of='each worker')
    parser.add_argument(
        '--workers',
        type=parse_count,
        default=1,
        metavar='N',
        help='processes that run episodes, 2 GB each; default: 1',
    )


def add_engine(parser: argparse.ArgumentParser, engines: Sequence[str], of: str) -> None:
    """Declare the options for the engine.

    :param of: Whose threads ``--threads`` counts.
    """
    parser.add_argument(
        '--engine',
        choices=engines,
        default='onnxruntime',
        help='engine that runs the policy; default: onnxruntime',
    )
    parser.add_argument(
        '--provider',
        default='CPUExecutionProvider',
        metavar='NAME',
        help='execution provider of onnxruntime; default: CPUExecutionProvider',
    )
    add_precision(parser)
    parser.add_argument(
        '--threads',
        type=parse_count,
        default=1,
        metavar='N',
        help=f'threads of {of}; default: 1',
    )


def add_precision(parser: argparse.ArgumentParser) -> None:
    """Declare the options of engines that have a choice of precision."""
    parser.add_argument(
        '--precision',
        choices=tuple(TOLERANCES),
        help='what openvino or torch-cuda computes in; default: fp32 for openvino, and for '
        'torch-cuda the fastest that was verified',
    )
    add_no_compile(parser)


def add_no_compile(parser: argparse.ArgumentParser) -> None:
    """Declare the option for compilation."""
    parser.add_argument(
        '--no-compile',
        dest='compiled',
        action='store_false',
        help='torch-cuda: do not compile the blocks of the model',
    )


def add_preset(parser: argparse.ArgumentParser) -> None:
    """Declare the options for the shapes of a model and the length of its prompt."""
    parser.add_argument(
        '--preset',
        default='openvla-oft-7b',
        metavar='NAME',
        help='a model by name; default: openvla-oft-7b',
    )
    parser.add_argument(
        '--text',
        type=parse_count,
        default=35,
        metavar='N',
        help='text tokens: BOS, the words and the stop token; default: 35',
    )


def add_render(parser: argparse.ArgumentParser) -> None:
    """Declare the option for rendering."""
    parser.add_argument(
        '--render',
        choices=('cheap', 'standard'),
        default='cheap',
        help='cheap renders 2 to 3 times faster and looks slightly different; default: cheap',
    )


def add_episodes(parser: argparse.ArgumentParser, tasks: str, inits: str) -> None:
    """Declare the options for tasks, and for initial states or drawn layouts.

    :param tasks: Text of the default tasks.
    :param inits: Text of the default initial states.
    """
    for name, what, default in (('task', 'tasks', tasks), ('init', 'saved initial states', inits)):
        parser.add_argument(
            f'--{name}s',
            f'--{name}',
            type=parse_range,
            metavar='A-B',
            help=f'{what}, such as 0-9 or 0,3; default: {default}',
        )
    parser.add_argument(
        '--layouts',
        type=parse_range,
        metavar='A-B',
        help='instead of saved initial states, the layouts that these seeds draw, such as '
        '400000-400004',
    )


def chosen_episodes(
    parsed: argparse.Namespace,
    suites: Iterable[str],
    tasks: tuple[int, ...],
    inits: tuple[int, ...],
) -> tuple[EpisodeSpec, ...]:
    """Return the episodes that the options of :func:`add_episodes` choose.

    :param tasks: Tasks if ``--tasks`` was not given.
    :param inits: Initial states if neither ``--inits`` nor ``--layouts`` was given.
    :raises ArgumentError: When LIBERO has no such episodes, or when layouts are asked for together
        with initial states or with the seed for these.
    """
    from lightvla_ros.sim.episode import DRAWN_LAYOUT, EpisodeSpec

    tasks, inits = parsed.tasks or tasks, parsed.inits or inits
    starts = [(init, parsed.seed) for init in inits]
    if parsed.layouts:
        for name in ('inits', 'seed'):
            if getattr(parsed, name):
                raise ArgumentError(f'--layouts and --{name}: a layout is drawn by its own seed')
        starts, inits = [(DRAWN_LAYOUT, seed) for seed in parsed.layouts], ()
    check_episodes(suites, tasks, inits)
    found = product(suites, tasks, starts)
    return tuple(EpisodeSpec(suite, task, *start) for suite, task, start in found)


def eval_options(
    parsed: argparse.Namespace, tasks: tuple[int, ...], inits: tuple[int, ...], out: Path
) -> EvalOptions:
    """Turn parsed arguments into the options of an evaluation.

    :param tasks: Tasks if ``--tasks`` was not given.
    :param inits: Initial states if ``--inits`` was not given.
    :raises ArgumentError: When LIBERO has no such episodes.
    """
    from lightvla_ros.evaluate.episodes import Conditions, EvalOptions

    names = (
        'render',
        'replan',
        'max_steps',
        'engine',
        'provider',
        'precision',
        'compiled',
        'threads',
    )
    specs = chosen_episodes(parsed, expand_suites(parsed.suite), tasks, inits)
    conditions = Conditions(**{name: getattr(parsed, name) for name in names})
    return EvalOptions(parsed.policy, specs, conditions, out, workers=parsed.workers)
