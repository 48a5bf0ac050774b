"""`lightvla import`: turns a downloaded checkpoint into a policy folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lightvla_ros.cli.arguments import parse_pruning
from lightvla_ros.contract.libero import OPENVLA_LIBERO
from lightvla_ros.contract.robot import read_robot


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``lightvla import``."""
    parser.add_argument(
        '--checkpoint',
        type=Path,
        required=True,
        metavar='DIR',
        help='a published folder, as downloaded',
    )
    parser.add_argument(
        '--out', type=Path, required=True, metavar='DIR', help='policy folder to create'
    )
    parser.add_argument(
        '--unnorm-key', metavar='KEY', help='key of a data set in dataset_statistics.json'
    )
    parser.add_argument(
        '--pruning',
        type=parse_pruning,
        default='lightvla',
        metavar='METHOD',
        help='how the model prunes, which its weights do not show; off for OpenVLA-OFT, or a '
        'rule that needs no training, with the share of patches that it keeps: adp:SHARE or '
        'dart:SHARE; default: lightvla',
    )
    parser.add_argument(
        '--action-slice',
        choices=('training', 'release'),
        default='training',
        help='which hidden states the action head reads; default: training',
    )
    parser.add_argument(
        '--base',
        type=Path,
        metavar='DIR',
        help='folder of the base model, for a checkpoint that holds only an adapter',
    )
    parser.add_argument(
        '--robot',
        type=Path,
        metavar='FILE',
        help='contract of the robot that the checkpoint was trained on (`lightvla new-policy`); '
        "default: LIBERO's, as OpenVLA's data hold it",
    )


def run(parsed: argparse.Namespace) -> int:
    """Import a checkpoint, and print a summary."""
    from lightvla_ros.export.import_checkpoint import import_policy

    robot = OPENVLA_LIBERO if parsed.robot is None else read_robot(parsed.robot)
    manifest = import_policy(
        parsed.checkpoint,
        parsed.out,
        unnorm_key=parsed.unnorm_key,
        pruning=parsed.pruning,
        action_slice=parsed.action_slice,
        base=parsed.base,
        robot=robot,
    )
    provenance = manifest.provenance
    for note in provenance['notes']:
        print(f'lightvla import: note: {note}', file=sys.stderr)
    print(
        f'{parsed.out}: {len(manifest.model.weights)} files of weights, LoRA: {provenance["lora"]}'
    )
    print(f'dropped {len(provenance["dropped"])} unused tensors (listed in the provenance)')
    return 0
