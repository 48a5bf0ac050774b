"""`lightvla calibrate`: measures a policy's activations, so that `torch-cuda` can run it in fp8."""

from __future__ import annotations

import argparse
from pathlib import Path

from lightvla_ros.contract import load_manifest
from lightvla_ros.files import lock_beside, one_writer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``lightvla calibrate``."""
    parser.add_argument('policy', type=Path, metavar='POLICY', help='an exported policy folder')
    parser.add_argument(
        '--observations',
        type=Path,
        metavar='FILE.npz',
        help='recorded observations; default: the golden ones of the folder',
    )


def run(parsed: argparse.Namespace) -> int:
    """Measure and write the manifest; return 0."""
    from lightvla_ros.export.calibrate import calibrate
    from lightvla_ros.export.observations import read_observations

    manifest = load_manifest(parsed.policy)
    inputs = None
    if parsed.observations is not None:
        size = 0 if manifest.proprio is None else manifest.proprio.size
        inputs = read_observations(parsed.observations, len(manifest.cameras), size)
    folder: Path = parsed.policy
    with one_writer(folder, lock_beside(folder)):
        count, most = calibrate(folder, inputs)
    print(f'{folder}: calibrated on {count} observations; the largest activation is {most:.3g}')
    print(f'next: lightvla verify {folder} --engine torch-cuda --precision fp8')
    return 0
