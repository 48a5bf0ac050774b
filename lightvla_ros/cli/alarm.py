"""`lightvla alarm`: calibrates and measures the alarm for observations unlike the recorded ones."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lightvla_ros.cli.arguments import (
    add_render,
    add_suite,
    check_episodes,
    expand_suites,
    parse_count,
    parse_range,
    parse_seed,
)
from lightvla_ros.contract import Manifest, amend_manifest, load_manifest
from lightvla_ros.errors import ArgumentError
from lightvla_ros.files import lock_beside, one_writer, write_text

if TYPE_CHECKING:
    from lightvla_ros.policy.observation import Observation

FIRST_SEED = 300_000  # beyond those that `lightvla collect` begins with


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the parts of ``lightvla alarm`` and their options."""
    parts = parser.add_subparsers(dest='part', required=True, metavar='WHAT', help='what is done')
    text = 'what a policy sees in fresh layouts of LIBERO, a file for each episode'
    observe = parts.add_parser('observe', help=text, description=f'Stores {text}.')
    observe.set_defaults(
        prog=observe.prog, work=_observe, stopped='stopped; run the same command again to continue'
    )
    observe.add_argument('policy', type=Path, metavar='POLICY', help='an exported policy folder')
    observe.add_argument('--out', type=Path, required=True, metavar='DIR', help='folder for files')
    add_suite(observe, several=True)
    observe.add_argument(
        '--tasks',
        type=parse_range,
        default=parse_range('0-9'),
        metavar='A-B',
        help='tasks, such as 0-9 or 0,3; default: 0-9',
    )
    observe.add_argument(
        '--episodes', type=parse_count, default=4, metavar='N', help='of each task; default: 4'
    )
    observe.add_argument(
        '--first-seed',
        type=parse_seed,
        default=FIRST_SEED,
        metavar='N',
        help=f'seed of the first layout of a task; default: {FIRST_SEED}',
    )
    add_render(observe)

    text = 'what is usual in recorded observations, and writes it into the manifest'
    calibrate = parts.add_parser('calibrate', help=text, description=f'Measures {text}.')
    calibrate.set_defaults(prog=calibrate.prog, work=_calibrate)
    calibrate.add_argument('policy', type=Path, metavar='POLICY', help='an exported policy folder')
    source = calibrate.add_mutually_exclusive_group(required=True)
    _add_observations(source)
    source.add_argument(
        '--data', type=Path, metavar='PATH', help='a recording, or a folder of them'
    )
    calibrate.add_argument(
        '--mapping',
        type=Path,
        metavar='FILE',
        help="data YAML of --data; without it LIBERO's files are read",
    )

    text = 'how well the alarm tells planted faults, and episodes that fail'
    measure = parts.add_parser('measure', help=text, description=f'Measures {text}.')
    measure.set_defaults(prog=measure.prog, work=_measure)
    measure.add_argument('policy', type=Path, metavar='POLICY', help='a calibrated policy folder')
    _add_observations(measure, required=True)
    measure.add_argument(
        '--json', type=Path, metavar='FILE', help='write the result into this file'
    )


def _add_observations(parser: argparse._ActionsContainer, **options: bool) -> None:
    parser.add_argument(
        '--observations',
        type=Path,
        nargs='+',
        metavar='PATH',
        help='.npz files of observations, or folders of them',
        **options,
    )


def run(parsed: argparse.Namespace) -> int:
    """Do the chosen part.

    :returns: 0.
    """
    return parsed.work(parsed)


def _observe(parsed: argparse.Namespace) -> int:
    from tqdm import tqdm

    suites = expand_suites(parsed.suite)
    check_episodes(suites, parsed.tasks)
    load_manifest(parsed.policy)  # a fault of the folder is better known before scenes are built
    from lightvla_ros.collect.observe import ObservePlan, observe_episodes
    from lightvla_ros.policy.policy import Policy

    plan = ObservePlan(
        parsed.out,
        tuple(suites),
        parsed.tasks,
        parsed.episodes,
        parsed.first_seed,
        parsed.render,
    )
    total = len(plan.suites) * len(plan.tasks) * plan.episodes
    solved = failed = 0
    with one_writer(parsed.out), Policy.load(parsed.policy) as policy, tqdm(total=total) as bar:
        for _, success in observe_episodes(policy, plan):
            solved, failed = solved + success, failed + (not success)
            bar.set_postfix(solved=solved, failed=failed)
            bar.update()
    print(f'{parsed.out}: {total} episodes, {solved} solved, {failed} failed')
    return 0


def _calibrate(parsed: argparse.Namespace) -> int:
    from lightvla_ros.policy.familiarity import calibrate
    from lightvla_ros.policy.policy import Policy

    if parsed.mapping is not None and parsed.data is None:
        raise ArgumentError('--mapping is of --data')
    folder: Path = parsed.policy
    manifest = load_manifest(folder)
    with one_writer(folder, lock_beside(folder)), Policy.load(folder) as policy:
        if parsed.data is None:
            files = _files(parsed.observations)
            seen = (each for file in files for each in _read(file, manifest)[0])
        else:
            seen = _recorded(parsed.data, parsed.mapping, manifest)
        usual = calibrate(policy, seen)
        amend_manifest(folder, familiarity=usual)
    print(
        f'{folder}: calibrated on {usual["observations"]} observations; '
        f'{len(usual["by_instruction"])} instructions have ranges of their own'
    )
    return 0


def _measure(parsed: argparse.Namespace) -> int:
    from lightvla_ros.errors import EvaluationError
    from lightvla_ros.evaluate.alarm import SeenEpisode, measure, table
    from lightvla_ros.policy.familiarity import load_alarm
    from lightvla_ros.policy.policy import Policy

    manifest = load_manifest(parsed.policy)
    if manifest.familiarity is None:
        raise EvaluationError(
            f'{parsed.policy}: its alarm is not calibrated; run lightvla alarm calibrate'
        )
    episodes = [SeenEpisode(*_read(file, manifest)) for file in _files(parsed.observations)]
    say = lambda text: print(f'{text} ...', flush=True)  # noqa: E731
    with Policy.load(parsed.policy) as policy:
        document = measure(policy, load_alarm(policy), episodes, say)
    print(table(document))
    if parsed.json is not None:
        parsed.json.parent.mkdir(parents=True, exist_ok=True)
        write_text(parsed.json, json.dumps(document, indent=1) + '\n')
    return 0


def _files(paths: list[Path]) -> list[Path]:
    """Return the files, and those of the folders.

    :raises ArgumentError: When a folder has none.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        whole = sorted(p for p in path.glob('*.npz') if not p.stem.endswith('.part'))
        if not whole:
            raise ArgumentError(f'--observations {path}: no .npz in this folder; name another')
        found += whole
    return found


def _read(path: Path, manifest: Manifest) -> tuple[tuple[Observation, ...], bool | None]:
    """Return the observations of a file, and whether its episode was solved, if it says so."""
    from lightvla_ros.export.observations import read_observations
    from lightvla_ros.policy.observation import observations

    size = 0 if manifest.proprio is None else manifest.proprio.size
    arrays = read_observations(path, len(manifest.cameras), size)
    with np.load(path, allow_pickle=False) as file:
        success = bool(file['success']) if 'success' in file else None
    return tuple(observations(manifest, arrays)), success


def _recorded(path: Path, mapping: Path | None, manifest: Manifest) -> Iterator[Observation]:
    """Yield the observations of recordings, as training reads them."""
    from lightvla_ros.demonstrations.mapping import read_mapping
    from lightvla_ros.demonstrations.reader import read_demonstrations
    from lightvla_ros.policy.observation import Observation

    found = read_demonstrations(path, mapping=None if mapping is None else read_mapping(mapping))
    frames = found.load(segmentation=False)
    names = [camera.name for camera in manifest.cameras]
    if list(frames.robot.cameras) != names:
        raise ArgumentError(
            f'--data {path}: has the cameras {", ".join(frames.robot.cameras)}; the policy sees '
            f'{", ".join(names)}'
        )
    for images, state, text in zip(frames.images, frames.proprio, frames.instruction, strict=True):
        state = None if manifest.proprio is None else state.astype(np.float64)
        pictures = dict(zip(names, images, strict=True))
        yield Observation(pictures, frames.instructions[text], state)
