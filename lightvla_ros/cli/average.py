"""`lightvla average`: writes a policy whose weights lie between those of two others."""

from __future__ import annotations

import argparse
from pathlib import Path

from lightvla_ros.cli.arguments import number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``lightvla average``."""
    parser.add_argument('first', type=Path, metavar='FIRST', help='policy folder with weights')
    parser.add_argument(
        'second',
        type=Path,
        metavar='SECOND',
        help='another one, trained from the first, or both from a third',
    )
    parser.add_argument(
        '--share',
        type=number(0, 1),
        default=0.5,
        metavar='X',
        help='how far from the first (0) to the second (1); default: 0.5',
    )
    parser.add_argument(
        '--parts',
        choices=('all', 'tokens', 'decoder'),
        default='all',
        help='what is averaged: all; tokens: towers and projector; or decoder: its layers and the '
        'head. All else is of the second; default: all',
    )
    parser.add_argument(
        '--out', type=Path, required=True, metavar='DIR', help='policy folder to create'
    )


def run(parsed: argparse.Namespace) -> int:
    """Write the folder."""
    from lightvla_ros.train.average import average

    average(parsed.first, parsed.second, parsed.share, parsed.parts, parsed.out)
    print(f'{parsed.out}: written; next: lightvla export --policy {parsed.out} --out DIR')
    return 0
