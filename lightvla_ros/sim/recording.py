"""Recordings: the expert's actions in an episode, and how the episode ended."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lightvla_ros.contract.libero import CHUNK_LENGTH
from lightvla_ros.files import replace_whole
from lightvla_ros.sim.episode import EpisodeRunner, EpisodeSpec
from lightvla_ros.sim.expert.script import Expert
from lightvla_ros.sim.libero_env import LiberoEnv, versions


@dataclass(frozen=True)
class Recording:
    """One episode of the expert.

    :param actions: float64 [T, 7], OSC_POSE; the episode ended with the last.
    :param end_state: Joint positions at the end: whether a replay was exact.
    :param versions: Versions of the simulator; with others a replay may end differently. Empty if
        unknown.
    """

    spec: EpisodeSpec
    success: bool
    actions: np.ndarray
    end_state: np.ndarray
    versions: dict[str, str] = field(default_factory=versions)

    def chunk_at(self, step: int) -> np.ndarray:
        """Return the up to 8 actions from a step on; none after the end."""
        return self.actions[step : step + CHUNK_LENGTH]

    def save(self, folder: Path) -> Path:
        """Write it into a folder under its episode's name."""
        folder.mkdir(parents=True, exist_ok=True)
        path = recording_path(folder, self.spec)
        header = json.dumps({**vars(self.spec), 'success': self.success, 'versions': self.versions})
        with replace_whole(path, self.actions.nbytes + self.end_state.nbytes) as part:
            np.savez(part, header=header, actions=self.actions, end_state=self.end_state)
        return path


def recording_path(folder: Path, spec: EpisodeSpec) -> Path:
    """Return the path of an episode's recording."""
    return Path(folder) / f'{spec.suite}-{spec.task}-{spec.init_state}-{spec.seed}.npz'


def load_recording(path: Path) -> Recording:
    """Read a recording.

    :raises FileNotFoundError: When there is none.
    """
    with np.load(path, allow_pickle=False) as file:
        header = json.loads(str(file['header']))
        success, recorded_with = header.pop('success'), header.pop('versions', {})
        return Recording(
            EpisodeSpec(**header), success, file['actions'], file['end_state'], recorded_with
        )


def record(env: LiberoEnv, spec: EpisodeSpec) -> Recording:
    """Run the expert through an episode; after its script it holds still to the limit."""
    runner = EpisodeRunner(env, spec)
    expert = Expert(env)
    actions = []
    while not runner.finished:
        actions.append(runner.hold_action() if expert.finished else expert.act())
        runner.step(actions[-1])
    return Recording(spec, runner.success, np.array(actions), end_state(env))


def replay_direct(env: LiberoEnv, recording: Recording) -> Recording:
    """Run recorded actions again, to check that the simulator repeats the episode."""
    runner = EpisodeRunner(env, recording.spec)
    for action in recording.actions:
        runner.step(action)
    return Recording(
        recording.spec, runner.success, recording.actions[: runner.steps], end_state(env)
    )


def record_all(specs: Iterable[EpisodeSpec]) -> Iterator[Recording]:
    """Record episodes in order; a task's environment is built once if its episodes are in a row."""
    env, built = None, None
    try:
        for spec in specs:
            if built != (spec.suite, spec.task):
                if env is not None:
                    env.close()
                env = LiberoEnv(spec.suite, spec.task, cameras=False)
                built = (spec.suite, spec.task)
            yield record(env, spec)
    finally:
        if env is not None:
            env.close()


def end_state(env: LiberoEnv) -> np.ndarray:
    """Return all joint positions of the simulation."""
    return np.array(env.simulation.sim.data.qpos)
