"""The command ``lightvla verify``: run it, and say what was found."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from lightvla_ros.contract import ContractError
from lightvla_ros.export.verify import verify
from lightvla_ros.manifest import Verification
from lightvla_ros.vla.errors import CheckpointError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``lightvla verify``."""
    parser.add_argument('policy', type=Path, metavar='POLICY_DIR')
    parser.add_argument('--engine', metavar='NAME', help='only engines of this name')
    parser.add_argument(
        '--count', type=int, default=8, help='random observations besides the golden ones'
    )
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--json', action='store_true')


def run(parsed: argparse.Namespace) -> int:
    """Verify and print; return 0 when there is an engine and every one passed, else 1."""
    try:
        found, absent = verify(
            parsed.policy, only=parsed.engine, count=parsed.count, threads=parsed.threads
        )
    except (ContractError, CheckpointError) as error:
        print(f'lightvla verify: {error}')
        return 1
    passed = bool(found) and all(each.passed for each in found)
    if parsed.json:
        document = {
            'passed': passed,
            'engines': [asdict(each) for each in found],
            'not_here': absent,
        }
        print(json.dumps(document, indent=2))
        return int(not passed)
    for each in found:
        print('\n'.join(_lines(each)))
    for line in absent:
        print(f'not here: {line}')
    if not found:
        print('lightvla verify: no engine could be loaded, so none is verified')
    return int(not passed)


def _lines(each: Verification) -> list[str]:
    figures = each.figures
    lines = [
        f'{each.backend} {each.precision}: {"passed" if each.passed else "FAILED"}, against '
        f'{each.reference}'
    ]
    if 'observations' in figures:
        lines.append(
            f'  kept sets     overlap {figures["jaccard_mean"]:.4f} (mean), '
            f'{figures["jaccard_min"]:.4f} (least) in {figures["observations"]} observations'
        )
        for name, key in (('same kept set', 'same_kept'), ('another one', 'other_kept')):
            worst = figures[key]
            lines.append(
                f'  {name:13} {worst["compared"]} chunks: {worst["millimetres"]:.2g} mm, '
                f'{worst["degrees"]:.2g} degrees, {worst["flips"]} gripper flips'
            )
    return lines + [f'  fault: {fault}' for fault in figures['faults']]
