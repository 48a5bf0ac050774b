"""`lightvla replay`: runs what a policy node recorded through a policy again, and compares."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from lightvla_ros.cli.arguments import add_precision, parse_count
from lightvla_ros.engine import ENGINES, options_of
from lightvla_ros.errors import ArgumentError, ConfigError

if TYPE_CHECKING:
    from lightvla_ros.policy.policy import Policy
    from lightvla_ros.replay.recorded import Recording
    from lightvla_ros.replay.replay import Replay


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``lightvla replay``."""
    parser.add_argument(
        'recording',
        type=Path,
        metavar='FILE',
        help='an MCAP file of a policy node with record:=true, or a folder of them',
    )
    parser.add_argument(
        '--policy', type=Path, metavar='DIR', help='policy folder; default: the recorded one'
    )
    parser.add_argument(
        '--engine', choices=(*ENGINES, 'torch'), help='engine; default: the recorded one'
    )
    parser.add_argument(
        '--provider',
        metavar='NAME',
        help='execution provider of onnxruntime; default: the recorded one',
    )
    add_precision(parser)
    parser.add_argument(
        '--threads', type=parse_count, metavar='N', help='threads; default: as recorded'
    )
    parser.add_argument(
        '--tolerant',
        action='store_true',
        help="accept differences within the precision's tolerance from the same engine, too: the "
        'same engine on another processor rounds otherwise',
    )
    parser.add_argument(
        '--to-test',
        type=Path,
        metavar='DIR',
        help='write a small regression test into this new folder, which pytest runs',
    )
    parser.add_argument(
        '--observations',
        type=parse_count,
        default=4,
        metavar='N',
        help='observations in the regression test, at most; default: 4',
    )
    parser.add_argument('--json', action='store_true', help='print JSON alone')


def run(parsed: argparse.Namespace) -> int:
    """Replay, compare and print.

    :returns: 0 when the answers are the recorded ones: bit for bit from the same engine, within its
        tolerance from another one; else 1.
    """
    from lightvla_ros.replay.recorded import Hold, Recording
    from lightvla_ros.replay.regression_test import Choice, write_test
    from lightvla_ros.replay.replay import Replay

    if parsed.to_test is not None and parsed.to_test.exists() and any(parsed.to_test.iterdir()):
        raise ArgumentError(f'--to-test: {parsed.to_test} is not empty; name a new folder')
    recording, choice = Recording(parsed.recording), Choice(parsed.observations)
    replay: Replay | None = None
    try:
        for each in recording:
            if isinstance(each, Hold):
                choice.see(each)
                continue
            if replay is None:
                folder, engine, policy = _load(parsed, recording)
                replay = Replay(policy, exact=not parsed.tolerant)
            difference = replay.run(each)
            choice.see(each, difference is None or not difference.identical)
    finally:
        if replay is not None:
            replay.policy.close()
    if replay is None:
        raise ConfigError(
            f'{parsed.recording}: no inference can be replayed: '
            + ('; '.join(recording.notes) or f'none of {recording.read} has an answer')
        )
    faults = replay.faults()
    print(_document(recording, replay, faults) if parsed.json else _text(recording, replay, faults))
    if parsed.to_test is not None:
        chosen = write_test(parsed.to_test, recording, choice, folder, engine)
        if not parsed.json:
            numbers = ', '.join(str(each.number) for each in chosen)
            print(f'{parsed.to_test}: written with the inferences {numbers}; run it: pytest DIR')
    return int(bool(faults))


def _load(parsed: argparse.Namespace, recording: Recording) -> tuple[Path, str, Policy]:
    """Load the policy as it is recorded, but for what the arguments say otherwise."""
    from lightvla_ros.policy.policy import Policy

    recorded = recording.parameters
    folder = parsed.policy or recorded.get('policy')
    if not folder:
        raise ArgumentError(f'{parsed.recording}: does not say which policy ran; give --policy')
    engine = parsed.engine or recorded.get('engine', 'onnxruntime')
    same = engine == recorded.get('engine', engine)
    provider = parsed.provider or (recorded.get('provider') if same else None)
    precision = parsed.precision or (recorded.get('precision') if same else None)
    options = options_of(engine, provider, precision or None, parsed.compiled)
    threads = parsed.threads or recorded.get('threads', 1)
    return Path(folder), engine, Policy.load(folder, engine, threads, **options)


def _document(recording: Recording, replay: Replay, faults: list[str]) -> str:
    document = {
        'passed': not faults,
        'engine': replay.engine,
        'recorded_engines': sorted(replay.engines),
        'same_engine': replay.same_engine,
        **replay.figures(),
        'recorded': recording.read,
        'recorded_failures': recording.failed,
        'notes': recording.notes,
        'faults': faults,
    }
    return json.dumps(document, indent=2)


def _text(recording: Recording, replay: Replay, faults: list[str]) -> str:
    found = replay.figures()
    lines = [f'note: {line}' for line in recording.notes]
    if replay.policies != {replay.policy.manifest.fingerprint}:
        lines.append(f'note: recorded with another policy than {replay.policy.manifest.name}')
    if recording.failed:
        lines.append(f'note: {recording.failed} of {recording.read} inferences have no answer')
    lines.append(
        f'{replay.engine}, recorded with {", ".join(sorted(replay.engines))}: the same bits in '
        f'{found["identical"]} of {found["compared"]} answers'
    )
    if found['identical'] < found['compared']:
        lines.append(
            f'  kept patches    overlap {found["overlap_mean"]:.4f} (mean), '
            f'{found["overlap_min"]:.4f} (least)'
        )
        for name, key in (('the same ones', 'same_kept'), ('other ones', 'other_kept')):
            largest = found[key]
            lines.append(
                f'  {name:15} {largest["compared"]} chunks: {largest["millimetres"]:.2g} mm, '
                f'{largest["degrees"]:.2g} degrees, {largest["flips"]} gripper flips'
            )
    return '\n'.join(lines + [f'fault: {line}' for line in faults])
