#!/usr/bin/env python3
"""Write the untrained policy folder: a LightVLA-shaped network with seeded random weights."""

import argparse
from pathlib import Path

from lightvla_ros.export.untrained import write_untrained_policy


def main() -> None:
    """Parse the command line and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', type=Path, required=True, help='folder to create')
    parser.add_argument('--seed', type=int, default=0)
    arguments = parser.parse_args()
    manifest = write_untrained_policy(arguments.out, arguments.seed)
    print(f'{arguments.out}: {manifest.name}, fingerprint {manifest.fingerprint[:12]}')


if __name__ == '__main__':
    main()
