"""`lightvla verify`: checks that the engines of a policy compute what the trained model does."""

from __future__ import annotations

import argparse
import errno
import json
from dataclasses import asdict
from pathlib import Path

from lightvla_ros.cli.arguments import add_no_compile, parse_count
from lightvla_ros.contract import MANIFEST_NAME, Verification
from lightvla_ros.engine import ENGINES
from lightvla_ros.errors import ArgumentError
from lightvla_ros.policy.tolerances import TOLERANCES
from lightvla_ros.verify.verify import news, verify, write_verifications

READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``lightvla verify``."""
    parser.add_argument('policy', type=Path, metavar='POLICY', help='an exported policy folder')
    parser.add_argument('--engine', choices=ENGINES, help='verify only engines of this name')
    parser.add_argument(
        '--precision',
        choices=tuple(TOLERANCES),
        help='verify engines in this precision; default: that of the graphs; without graphs all',
    )
    add_no_compile(parser)
    parser.add_argument(
        '--provider',
        metavar='NAME',
        help='verify only this execution provider of onnxruntime, such as CUDAExecutionProvider',
    )
    parser.add_argument(
        '--count',
        type=int,
        default=8,
        metavar='N',
        help='random observations besides the golden ones; default: 8',
    )
    parser.add_argument(
        '--threads',
        type=parse_count,
        default=1,
        metavar='N',
        help='threads of each engine; default: 1',
    )
    parser.add_argument('--json', action='store_true', help='print JSON alone')


def run(parsed: argparse.Namespace) -> int:
    """Verify, write new results into the manifest, and print them.

    :returns: 0 when at least one engine was verified and all passed, else 1.
    """
    if parsed.count < 0 or parsed.threads < 1:
        raise ArgumentError('--count must be 0 or more, and --threads 1 or more')
    found, unusable = verify(
        parsed.policy,
        only=parsed.engine,
        precision=parsed.precision,
        provider=parsed.provider,
        compiled=parsed.compiled,
        count=parsed.count,
        threads=parsed.threads,
    )
    passed = bool(found) and all(each.passed for each in found)
    if not parsed.json:
        for each in found:
            print('\n'.join(_lines(each)))
        for line in unusable:
            print(f'unavailable: {line}')
        if not found:
            print('no engine could be used, so none was verified')
    written, said = _write(parsed.policy, found)
    if not parsed.json:
        print(said)
        return int(not passed)
    document = {
        'passed': passed,
        'engines': [asdict(each) for each in found],
        'not_usable_here': unusable,
        'written': written,
        'manifest': said,
    }
    print(json.dumps(document, indent=2))
    return int(not passed)


def _write(policy_dir: Path, found: list[Verification]) -> tuple[bool, str]:
    """Write new results into the manifest; return whether it was written, and a line about it.

    :raises OSError: When writing fails, unless the folder is read-only: then the line says so.
    """
    path = policy_dir / MANIFEST_NAME
    new = news(policy_dir, found)
    if not new:
        return False, f'{path}: unchanged, because there are no new results'
    what = ', '.join(
        f'{each.backend} {each.precision} {"passed" if each.passed else "FAILED"}' for each in new
    )
    try:
        write_verifications(policy_dir, new)
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise
        return False, (
            f'{path}: cannot be written ({error.strerror}), so nodes do not know the new results: '
            f'{what}; verify a writable copy of the folder'
        )
    return True, f'{path}: written: {what}'


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
