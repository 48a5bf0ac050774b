"""`lightvla show`: draws and counts the tokens that a policy keeps."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightvla_ros.cli.arguments import add_episodes, add_run_arguments, add_suite, eval_options
from lightvla_ros.files import one_writer, write_text

if TYPE_CHECKING:
    from lightvla_ros.evaluate.episodes import EvalOptions

LOOK_EVERY = 4  # steps between the pictures of the animation, 0.2 s
TASKS, INITS = tuple(range(10)), tuple(range(5))  # of figures without pictures


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``lightvla show``."""
    add_run_arguments(parser)
    add_suite(parser)
    add_episodes(parser, tasks='0; 0-9 with --stats-only', inits='0; 0-4 with --stats-only')
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('out/show'),
        metavar='DIR',
        help='files of the same names are replaced; default: out/show',
    )
    parser.add_argument(
        '--stats-only',
        action='store_true',
        help='figures of many episodes, without pictures: DIR/concentration.json',
    )


def run(parsed: argparse.Namespace) -> int:
    """Run the episodes, write the files and print the figures.

    :returns: 0; 1 when an episode is an error or the command fails.
    """
    tasks, inits = (TASKS, INITS) if parsed.stats_only else ((0,), (0,))
    options = eval_options(parsed, tasks, inits, parsed.out)
    with one_writer(parsed.out):
        return _write(options, parsed.out, parsed.stats_only)


def _write(options: EvalOptions, out: Path, stats_only: bool) -> int:
    from lightvla_ros.show.concentration import table

    if stats_only:
        document = _stats(options, out)
        print(table(document))
        return int(bool(document['errors']))
    for document in _pictures(options, out):
        print(f'"{document["instruction"]}"')
        print(table(document))
        print('\n'.join(document['files']), end='\n\n')
    return 0


def _stats(options: EvalOptions, out: Path) -> dict[str, Any]:
    from lightvla_ros.show.concentration import measure

    document = measure(options)
    write_text(out / 'concentration.json', json.dumps(document, indent=1) + '\n')
    return document


def _pictures(options: EvalOptions, out: Path) -> Iterator[dict[str, Any]]:
    """Run each episode in this process, write its files, and yield its document."""
    from lightvla_ros.evaluate.direct import load_policy
    from lightvla_ros.evaluate.result import result_header
    from lightvla_ros.show.watch import watch_episode
    from lightvla_ros.show.write import write_episode

    policy, _ = load_policy(options)
    environments = options.conditions.environments()
    try:
        options.conditions.check(policy.manifest.action.chunk_length)
        for spec in options.specs:
            with environments.of(spec) as env:
                seen = watch_episode(policy, env, spec, options.conditions.replan, LOOK_EVERY)
            header = {**vars(spec), **result_header(options, policy.manifest)}
            yield write_episode(seen, policy.manifest, header, out)
    finally:
        environments.close()
        policy.close()
