"""`lightvla eval`: measures how often a policy solves the tasks of LIBERO."""

from __future__ import annotations

import argparse
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightvla_ros.cli.arguments import (
    add_conditions,
    add_episodes,
    add_suite,
    chosen_episodes,
    expand_suites,
    parse_seed,
)
from lightvla_ros.errors import ArgumentError

if TYPE_CHECKING:
    from lightvla_ros.evaluate.episodes import EvalOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``lightvla eval``."""
    parser.set_defaults(stopped='stopped; run the same command again to continue')
    parser.add_argument('--policy', type=Path, metavar='DIR', help='policy folder')
    parser.add_argument(
        '--merge', type=Path, nargs='+', metavar='FILE', help='merge the results of shards'
    )
    parser.add_argument(
        '--json',
        type=Path,
        required=True,
        metavar='FILE',
        help='file for the result; the journal, FILE with .jsonl, is resumed if it exists',
    )
    add_suite(parser, several=True)
    add_episodes(parser, tasks='0-9', inits='0-19')
    parser.add_argument(
        '--pruning',
        choices=('on', 'off'),
        default='on',
        help='off: the language model sees every visual token; default: on',
    )
    parser.add_argument(
        '--ablation',
        choices=('none', 'random', 'fixed', 'more', 'fewer'),
        default='none',
        help='replace the k kept tokens: by k others, drawn for each chunk (random) or always the '
        'same (fixed); by these and k others (more); by nine tenths (fewer); default: none',
    )
    parser.add_argument(
        '--ablation-seed',
        type=parse_seed,
        default=0,
        metavar='N',
        help='seed of what --ablation draws; default: 0',
    )
    parser.add_argument(
        '--prune',
        metavar='NAME:K',
        help='keep K patches by a method of others, with --engine torch: fastv-stop, fastv-slots, '
        'sparsevlm, sparsevlm-recycled, flashvla, flashvla-reuse, sp-vla, vla-pruner, vla-cache (K '
        'static patches of each camera), adp, dart, topk, random or fixed',
    )
    parser.add_argument(
        '--through',
        choices=('direct', 'ros'),
        default='direct',
        help='ros: run node and bridge in lockstep, with the same outcomes; default: direct',
    )
    parser.add_argument(
        '--controller',
        choices=('osc', 'crisp'),
        default='osc',
        help="crisp: the control law and the hand of a real Franka instead of LIBERO's own, which "
        'the chunk executor commands (needs --through ros); default: osc',
    )
    add_conditions(parser)
    parser.add_argument(
        '--shard',
        type=parse_shard,
        default=(1, 1),
        metavar='I/N',
        help='run part I of N of the episodes, such as 1/4',
    )


def parse_shard(text: str) -> tuple[int, int]:
    """Parse ``2/4`` -> (2, 4).

    :raises argparse.ArgumentTypeError: When it is not such a part.
    """
    match = re.fullmatch(r'(\d+)/(\d+)', text)
    part, parts = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= part <= parts:
        raise argparse.ArgumentTypeError(f'{text!r} is not a part such as 1/4 or 4/4')
    return part, parts


def options_from(arguments: argparse.Namespace) -> EvalOptions:
    """Turn parsed arguments into options.

    :raises ArgumentError: When LIBERO has no such episodes.
    """
    from lightvla_ros.evaluate.episodes import Conditions, EvalOptions

    suites = expand_suites(arguments.suite)
    names = Conditions.__dataclass_fields__
    given = {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}
    return EvalOptions(
        policy=arguments.policy,
        specs=chosen_episodes(arguments, suites, tuple(range(10)), tuple(range(20))),
        conditions=Conditions(**given),
        out=arguments.json,
        shard=arguments.shard,
        workers=arguments.workers,
    )


def run(parsed: argparse.Namespace) -> int:
    """Evaluate or merge, and print the table.

    :returns: 0; 1 when an episode is an error or missing, or the evaluation fails. After Ctrl-C the
        same command continues from the journal.
    """
    from lightvla_ros.evaluate.result import missing, table

    document = _document(parsed)
    print(table(document))
    lacking = missing(document) if parsed.merge else 0
    if lacking:
        print(f'{lacking} of the requested episodes are in none of the files')
    return int(bool(document['errors'] or lacking))


def _document(parsed: argparse.Namespace) -> dict[str, Any]:
    from lightvla_ros.evaluate.evaluate import evaluate, journal_path

    if (parsed.policy is None) == (parsed.merge is None):
        raise ArgumentError('give either --policy DIR or --merge FILE FILE ...')
    journal_path(parsed.json)  # the name of a result
    if parsed.merge:
        from lightvla_ros.evaluate.result import merge, write_document

        document = merge(parsed.merge)
        write_document(parsed.json, document)
        return document
    options = options_from(parsed)
    if options.conditions.through == 'ros':
        from lightvla_ros.nodes.demo.ros_episodes import ros_episodes

        return evaluate(options, partial(ros_episodes, options))
    return evaluate(options)
