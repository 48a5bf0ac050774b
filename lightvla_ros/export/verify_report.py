"""The command ``lightvla verify``: run it, and say what was found."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from lightvla_ros.contract import ContractError
from lightvla_ros.errors import ArgumentError
from lightvla_ros.export.verify import verify, write_verifications
from lightvla_ros.manifest import Verification


def run(parsed: argparse.Namespace) -> int:
    """Verify and print; return 0 when there is an engine and every one passed, else 1."""
    if parsed.count < 0 or parsed.threads < 1:
        raise ArgumentError('--count must be 0 or more, and --threads 1 or more')
    found, absent = verify(
        parsed.policy, only=parsed.engine, count=parsed.count, threads=parsed.threads
    )
    code = _report(parsed, found, absent)
    try:
        write_verifications(parsed.policy, found)
    except (ContractError, OSError) as error:
        print(f'lightvla verify: nothing was written, so no node will run it: {error}')
        return 1
    return code


def _report(parsed: argparse.Namespace, found: list[Verification], absent: list[str]) -> int:
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
