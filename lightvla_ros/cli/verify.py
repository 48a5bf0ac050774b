"""`lightvla verify`: checks that the engines of a policy compute what the trained model does."""

from __future__ import annotations

import argparse
import errno
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightvla_ros.cli.arguments import (
    add_no_compile,
    add_render,
    add_suite,
    expand_suites,
    parse_count,
)
from lightvla_ros.contract import MANIFEST_NAME, Trial, Verification, load_manifest
from lightvla_ros.engine import ENGINES, OPTIONS, options_of
from lightvla_ros.errors import ArgumentError
from lightvla_ros.policy.tolerances import TOLERANCES
from lightvla_ros.verify.verify import news, verify, write_verifications

if TYPE_CHECKING:
    from lightvla_ros.sim.episode import EpisodeSpec

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
    trials = parser.add_argument_group(
        'trials of the engine that will be deployed',
        'They run on the named engine (default: onnxruntime on the CPU) once it is verified, and '
        'are written into the manifest as a rate with its interval.',
    )
    trials.add_argument(
        '--episodes', type=parse_count, metavar='N', help='run N episodes of LIBERO'
    )
    add_render(trials)
    trials.add_argument(
        '--workers',
        type=parse_count,
        default=1,
        metavar='N',
        help='processes that run episodes, 2 GB each; default: 1',
    )
    trials.add_argument(
        '--result',
        type=Path,
        metavar='FILE',
        help='JSON of the episodes, as of lightvla eval, and beside it the journal, which is '
        'resumed; default: out/verify/, named by policy and engine',
    )
    trials.add_argument(
        '--recording',
        type=Path,
        metavar='FILE',
        help='give the engine the observations of this recording of a policy node (record:=true), '
        'and count the answers that are the recorded ones within its tolerance',
    )
    add_suite(parser, several=True)


def run(parsed: argparse.Namespace) -> int:
    """Verify, write new results into the manifest, and print them.

    :returns: 0 when at least one engine was verified and all passed, and the answers to a recording
        are within tolerance; else 1.
    """
    if parsed.count < 0 or parsed.threads < 1:
        raise ArgumentError('--count must be 0 or more, and --threads 1 or more')
    specs = _specs(parsed)
    tried = bool(specs or parsed.recording)
    if tried and parsed.policy.is_dir() and not os.access(parsed.policy, os.W_OK):
        raise ArgumentError(
            f'{parsed.policy}: cannot be written, but trials are written into its manifest; name a '
            'writable copy of the folder'
        )
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
    trials, faults = [], []
    if tried and not passed:
        faults.append('no trial was run, because an engine failed')
    elif specs:
        trials.append(_run_episodes(parsed, specs))
    if passed and parsed.recording:
        trial, differing = _run_recording(parsed)
        trials.append(trial)
        faults += differing
    if not parsed.json:
        for trial in trials:
            print(f'{parsed.policy / MANIFEST_NAME}: written: {trial}')
        for line in faults:
            print(f'fault: {line}')
        return int(not passed or bool(faults))
    document = {
        'passed': passed and not faults,
        'engines': [each.as_dict() for each in found],
        'not_usable_here': unusable,
        'written': written,
        'manifest': said,
        'trials': [asdict(each) for each in trials],
        'faults': faults,
    }
    print(json.dumps(document, indent=2))
    return int(not passed or bool(faults))


def _specs(parsed: argparse.Namespace) -> tuple[EpisodeSpec, ...]:
    """Choose the episodes, if any were asked for."""
    if parsed.episodes is None:
        return ()
    from lightvla_ros.evaluate.engine_episodes import spread
    from lightvla_ros.evaluate.evaluate import journal_path

    if parsed.result is not None:
        journal_path(parsed.result)  # refuses a wrong name before anything runs
    return spread(expand_suites(parsed.suite), parsed.episodes)


def _deployed(parsed: argparse.Namespace) -> dict[str, Any]:
    """Return the engine that will be deployed, in the words of an evaluation's conditions."""
    engine = parsed.engine or 'onnxruntime'
    return {
        'engine': engine,
        'provider': parsed.provider or 'CPUExecutionProvider',
        'precision': parsed.precision if 'precision' in OPTIONS[engine] else None,
        'compiled': parsed.compiled,
        'threads': parsed.threads,
    }


def _run_episodes(parsed: argparse.Namespace, specs: tuple[EpisodeSpec, ...]) -> Trial:
    from lightvla_ros.evaluate.engine_episodes import run_episodes
    from lightvla_ros.evaluate.episodes import Conditions

    conditions = Conditions(**_deployed(parsed), render=parsed.render)
    out = parsed.result
    if out is None:
        manifest = load_manifest(parsed.policy)
        parts = (
            manifest.name,
            manifest.fingerprint[:8],
            conditions.engine,
            parsed.provider,
            conditions.precision,
        )
        out = Path('out/verify') / f'{"-".join(filter(None, parts))}.json'
    return run_episodes(parsed.policy, specs, conditions, parsed.workers, out)


def _run_recording(parsed: argparse.Namespace) -> tuple[Trial, list[str]]:
    """Replay the recording; return the trial, and a line for each fault in its answers."""
    from lightvla_ros.evaluate.engine_recording import run_recording
    from lightvla_ros.policy.policy import Policy
    from lightvla_ros.replay.recorded import Recording

    recording, wanted = Recording(parsed.recording), _deployed(parsed)
    engine, threads = wanted.pop('engine'), wanted.pop('threads')
    with Policy.load(parsed.policy, engine, threads, **options_of(engine, **wanted)) as policy:
        trial, replay = run_recording(parsed.policy, recording, policy)
    if not parsed.json:
        for line in recording.notes:
            print(f'note: {line}')
    return trial, replay.faults()


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
