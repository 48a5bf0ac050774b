"""`lightvla reference`: prints the tables of parameters and reasons of the documentation."""

from __future__ import annotations

import argparse
from pathlib import Path

from lightvla_ros.errors import ArgumentError
from lightvla_ros.files import write_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``lightvla reference``."""
    parser.add_argument(
        '--update', type=Path, metavar='FILE', help='write the tables into this file instead'
    )


def run(parsed: argparse.Namespace) -> int:
    """Print all tables, or write them into a file.

    :raises MissingMarkersError: When the file has no markers for a table.
    """
    from lightvla_ros.nodes.reference import MissingMarkersError, tables, updated

    path = parsed.update
    if path is None:
        print('\n'.join(f'## {name}\n\n{table}' for name, table in tables().items()))
        return 0
    try:
        text = path.read_text(encoding='utf-8')
    except UnicodeDecodeError as error:
        raise ArgumentError(f'--update {path}: is not UTF-8 text ({error})') from None
    try:
        write_text(path, updated(text))
    except MissingMarkersError as error:
        raise MissingMarkersError(f'--update {path}: {error}') from None
    return 0
