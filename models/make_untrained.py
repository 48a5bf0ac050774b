#!/usr/bin/env python3
"""Write an untrained policy: a preset's seeded random weights, for models/export_trt.py."""

import argparse
import sys
from pathlib import Path

from lightvla_ros.cli.arguments import parse_count, parse_seed
from lightvla_ros.cli.exit_code import exit_code


def main() -> int:
    """Parse the command line and write the folder; return the exit code."""
    arguments = make_parser().parse_args()
    return exit_code('make_untrained', lambda: _write(arguments))


def make_parser() -> argparse.ArgumentParser:
    """Declare the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', type=Path, required=True, help='folder to create')
    parser.add_argument('--seed', type=parse_seed, default=0)
    parser.add_argument(
        '--preset', default='libero-tiny', metavar='NAME', help='default: libero-tiny'
    )
    parser.add_argument('--layers', type=parse_count, help='only the first so many')
    return parser


def _write(arguments: argparse.Namespace) -> int:
    from lightvla_ros.export.untrained import write_untrained_weights
    from lightvla_ros.vla.config import first_layers, preset

    config = preset(arguments.preset)
    if arguments.layers is not None:
        config = first_layers(config, arguments.layers)
    manifest = write_untrained_weights(arguments.out, config, arguments.seed)
    print(f'{arguments.out}: {manifest.name}, fingerprint {manifest.fingerprint[:12]}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
