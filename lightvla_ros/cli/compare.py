"""`lightvla compare`: compares two results of `lightvla eval` on their common episodes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``lightvla compare``."""
    parser.add_argument('first', type=Path, metavar='A', help='a result of lightvla eval')
    parser.add_argument('second', type=Path, metavar='B', help='another result')
    parser.add_argument(
        '--shared', action='store_true', help='compare the episodes that both have, however few'
    )
    parser.add_argument('--json', action='store_true', help='print JSON alone')


def run(parsed: argparse.Namespace) -> int:
    """Compare and print."""
    from lightvla_ros.evaluate.compare import compare, report

    document = compare(parsed.first, parsed.second, parsed.shared)
    print(json.dumps(document, indent=2) if parsed.json else report(document))
    return 0
