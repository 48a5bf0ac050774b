"""`lightvla listen`: tests whether a policy follows its instruction."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lightvla_ros.cli.arguments import add_episodes, add_run_arguments, eval_options, parse_count
from lightvla_ros.contract.suites import EXPERT_SUITES
from lightvla_ros.files import write_text

TASKS, INITS = tuple(range(10)), (0, 1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``lightvla listen``."""
    add_run_arguments(parser)
    parser.add_argument(
        '--suite',
        choices=(*EXPERT_SUITES, 'all'),
        default='all',
        help=f'suite of tasks; default: all, which is {" and ".join(EXPERT_SUITES)}',
    )
    add_episodes(parser, tasks='0-9', inits='0-1')
    parser.add_argument(
        '--others',
        type=parse_count,
        default=3,
        metavar='N',
        help='at most N other requests are tried in each initial state; default: 3',
    )
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the result into this file')


def run(parsed: argparse.Namespace) -> int:
    """Try the requests and print the tables.

    :returns: 0; 1 when a scene is an error or the test fails.
    """
    from lightvla_ros.evaluate.listen import listen
    from lightvla_ros.evaluate.listen_result import table

    options = eval_options(parsed, TASKS, INITS, parsed.json or Path())
    if parsed.json is not None:  # so that an error of the folder comes before the episodes
        parsed.json.parent.mkdir(parents=True, exist_ok=True)
    document = listen(options, parsed.others)
    print(table(document))
    if parsed.json is not None:
        write_text(parsed.json, json.dumps(document, indent=1) + '\n')
    return int(bool(document['errors']))
