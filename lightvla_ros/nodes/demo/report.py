"""The summary of `lightvla demo`: the figures of all episodes. No ROS here."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from lightvla_ros.files import write_text
from lightvla_ros.machine import REPORTED_VERSIONS, machine, versions
from lightvla_ros.sim.episode import EpisodeSpec
from lightvla_ros.sim.recording import Recording, load_recording
from lightvla_ros.summary_statistics import mean_and_sd, percentiles

SUMMARY = 'summary.json'


@dataclass
class StageStatistics:
    """Durations and kept tokens, collected from the chunks' InferenceStats."""

    milliseconds: dict[str, list[float]] = field(default_factory=dict)
    kept: dict[str, list[int]] = field(default_factory=dict)
    chunks: int = 0

    def add(self, stages: dict[str, float], kept: dict[str, int]) -> None:
        """Add one chunk: milliseconds by stage, kept tokens by camera."""
        self.chunks += 1
        for stage, value in stages.items():
            self.milliseconds.setdefault(stage, []).append(value)
        for camera, count in kept.items():
            self.kept.setdefault(camera, []).append(count)

    def stage_ms(self) -> dict[str, dict[str, float]]:
        """Return the percentiles of each stage [ms]."""
        return {stage: percentiles(values, digits=3) for stage, values in self.milliseconds.items()}

    def kept_tokens(self) -> dict[str, dict[str, float]]:
        """Return mean and standard deviation by camera, and for all cameras together."""
        series = dict(self.kept)
        if self.kept:
            series['all'] = list(np.sum(list(self.kept.values()), axis=0))
        return {camera: mean_and_sd(counts) for camera, counts in series.items()}


def compare(direct: Recording, through_ros: dict, executed: Path) -> dict:
    """Compare an episode through ROS with the direct one.

    :param through_ros: The bridge's result; a result with an error counts as different.
    :param executed: File to which the bridge saved the executed actions.
    """
    comparison = {
        'direct': {'success': direct.success, 'steps': len(direct.actions)},
        'same_outcome': False,
        'same_end_state': False,
        'round_trip_error': None,
    }
    if through_ros['error']:
        return comparison
    replayed = load_recording(executed)
    comparison['same_outcome'] = through_ros['success'] == direct.success and through_ros[
        'steps'
    ] == len(direct.actions)
    comparison['same_end_state'] = bool(np.array_equal(replayed.end_state, direct.end_state))
    steps = min(len(replayed.actions), len(direct.actions))
    comparison['round_trip_error'] = float(
        np.abs(replayed.actions[:steps] - direct.actions[:steps]).max()
    )
    return comparison


def summary(
    options: DemoOptions,
    results: Iterable[dict],
    replays: Iterable[dict],
    statistics: StageStatistics,
    finished: bool,
) -> dict:
    """Compose ``summary.json``.

    ``episodes`` and ``successes`` count the policy's episodes that ended without an error. Replays
    are counted separately, with the number that ended as they did directly in the simulator.
    """
    results, replays = list(results), list(replays)
    valid = [result for result in results if not result['error']]
    everything = results + [replay['through_ros'] for replay in replays]
    errors = [r['round_trip_error'] for r in replays if r['round_trip_error'] is not None]
    return {
        'finished': finished,
        'date': datetime.now(UTC).isoformat(timespec='seconds'),
        'policy': str(options.policy) if options.episodes else None,
        'episodes': len(valid),
        'successes': sum(result['success'] for result in valid),
        'errors': sum(bool(result['error']) for result in everything),
        'chunks': statistics.chunks,
        'stage_ms': statistics.stage_ms(),
        'kept_tokens': statistics.kept_tokens(),
        'replay': {
            'episodes': len(replays),
            'same_outcome': sum(replay['same_outcome'] for replay in replays),
            'same_end_state': sum(replay['same_end_state'] for replay in replays),
            'successes': sum(replay['through_ros']['success'] for replay in replays),
            'max_round_trip_error': max(errors, default=None),
        },
        'renderer': next((r['renderer'] for r in everything if r.get('renderer')), ''),
        'render_setting': options.render,
        'mode': options.mode,
        'camera_size': options.camera_size,
        'machine': machine(),
        'versions': reported_versions(),
        'results': results,
        'replays': replays,
    }


def reported_versions() -> dict[str, str]:
    """Return the versions of the libraries that affect the figures, and the ROS distribution."""
    return {'ros_distro': os.environ.get('ROS_DISTRO', 'wheels'), **versions(REPORTED_VERSIONS)}


def write_summary(out: Path, document: dict) -> Path:
    """Write ``summary.json`` into the output folder."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / SUMMARY
    write_text(path, json.dumps(document, indent=2) + '\n')
    return path


class Progress:
    """One line per event on stderr, with the time since the start."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def __call__(self, text: str) -> None:
        """Print a line."""
        print(f'[{time.monotonic() - self._started:6.1f} s] {text}', file=sys.stderr, flush=True)


@dataclass(frozen=True)
class DemoOptions:
    """Options of `lightvla demo`.

    :param policy: Policy folder; None when only recordings are replayed.
    :param controller: What moves the arm; see the bridge's parameter.
    """

    out: Path
    policy: Path | None
    replays: tuple[EpisodeSpec, ...]
    episodes: tuple[EpisodeSpec, ...]
    video: bool
    render: str
    mode: str
    camera_size: int = 256
    controller: str = 'osc'
