#!/usr/bin/env python3
"""Write an untrained policy: a small network's graphs, or a preset's weights."""

import argparse
from pathlib import Path

from lightvla_ros.manifest import Manifest


def main() -> None:
    """Parse the command line and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', type=Path, required=True, help='folder to create')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--preset',
        metavar='NAME',
        help='weights for models/export_trt.py (libero-tiny; needs torch)',
    )
    parser.add_argument('--layers', type=int, help='of --preset, only the first so many')
    arguments = parser.parse_args()
    if arguments.layers is not None and not arguments.preset:
        parser.error('--layers goes with --preset')
    try:
        manifest = _write(arguments)
    except (ValueError, FileExistsError) as error:
        parser.error(str(error))
    print(f'{arguments.out}: {manifest.name}, fingerprint {manifest.fingerprint[:12]}')


def _write(arguments: argparse.Namespace) -> Manifest:
    if not arguments.preset:
        from lightvla_ros.export.untrained import write_untrained_policy

        return write_untrained_policy(arguments.out, arguments.seed)
    from lightvla_ros.export.untrained_weights import write_untrained_weights
    from lightvla_ros.vla.config import first_layers, preset

    config = preset(arguments.preset)
    if arguments.layers is not None:
        config = first_layers(config, arguments.layers)
    return write_untrained_weights(arguments.out, config, arguments.seed)


if __name__ == '__main__':
    main()
