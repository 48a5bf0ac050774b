"""`lightvla make-untrained`: writes a policy with seeded random weights, for `lightvla export`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from lightvla_ros.cli.arguments import parse_count, parse_pruning, parse_seed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``lightvla make-untrained``."""
    parser.add_argument(
        '--out', type=Path, required=True, metavar='DIR', help='policy folder to create'
    )
    parser.add_argument(
        '--seed', type=parse_seed, default=0, help='seed of the weights; default: 0'
    )
    parser.add_argument(
        '--preset', default='libero-tiny', metavar='NAME', help='shapes; default: libero-tiny'
    )
    parser.add_argument(
        '--robot',
        type=Path,
        metavar='FILE',
        help="the robot's contract, as written by lightvla new-policy; default: LIBERO's Panda",
    )
    parser.add_argument(
        '--layers',
        type=parse_count,
        metavar='N',
        help='only the first N layers of the language model; default: all',
    )
    parser.add_argument(
        '--pruning',
        type=parse_pruning,
        metavar='METHOD',
        help='how the model prunes: lightvla, off, adp:SHARE or dart:SHARE; default: as the preset',
    )


def run(parsed: argparse.Namespace) -> int:
    """Write the folder."""
    from lightvla_ros.contract.libero import OPENVLA_LIBERO
    from lightvla_ros.contract.robot import read_robot
    from lightvla_ros.export.untrained import write_untrained_weights
    from lightvla_ros.vla.config import first_layers, preset

    config = preset(parsed.preset)
    if parsed.layers is not None:
        config = first_layers(config, parsed.layers)
    if parsed.pruning is not None:
        config = replace(config, pruning=parsed.pruning)
    robot = OPENVLA_LIBERO if parsed.robot is None else read_robot(parsed.robot)
    manifest = write_untrained_weights(parsed.out, config, parsed.seed, robot)
    print(f'{parsed.out}: {manifest.name}, fingerprint {manifest.fingerprint[:12]}')
    return 0
