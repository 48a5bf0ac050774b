"""A policy alone drives in fresh layouts, and what it sees is stored, a file for each episode.

Unlike DAgger (``dagger.py``) nobody labels and nobody helps, so that episodes end as the policy's
do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lightvla_ros.errors import SimulationError
from lightvla_ros.files import replace_whole
from lightvla_ros.policy.policy import Policy
from lightvla_ros.policy.state import state_vector
from lightvla_ros.sim.closed_loop import check_for_libero, run_closed_loop
from lightvla_ros.sim.episode import DRAWN_LAYOUT, EpisodeRunner, EpisodeSpec
from lightvla_ros.sim.libero_env import LiberoEnv


@dataclass(frozen=True)
class ObservePlan:
    """Options of a collection of observations.

    :param episodes: Layouts of each task, solved or not.
    :param first_seed: Seed of a task's first layout; the next ones count up from it.
    """

    folder: Path
    suites: tuple[str, ...]
    tasks: tuple[int, ...]
    episodes: int
    first_seed: int
    render: str = 'cheap'


def observe_episodes(policy: Policy, plan: ObservePlan) -> Iterator[tuple[Path, bool]]:
    """Run the episodes that the folder lacks; yield each one's file, and whether it was solved.

    :raises ContractError: When the policy is not for LIBERO.
    :raises SimulationError: When a file is of another policy, or a task does not exist.
    """
    check_for_libero(policy.manifest)
    plan.folder.mkdir(parents=True, exist_ok=True)
    for suite in plan.suites:
        for task in plan.tasks:
            env: LiberoEnv | None = None
            try:
                for seed in range(plan.first_seed, plan.first_seed + plan.episodes):
                    path = plan.folder / f'{suite}-{task}-{seed}.npz'
                    if path.exists():
                        yield path, _is_solved(path, policy)
                        continue
                    env = env or LiberoEnv(suite, task, render=plan.render)
                    arrays = drive(env, policy, seed)
                    size = sum(each.nbytes for each in arrays.values())
                    with replace_whole(path, size) as part:
                        np.savez_compressed(part, **arrays)
                    yield path, bool(arrays['success'])
            finally:
                if env is not None:
                    env.close()


def drive(env: LiberoEnv, policy: Policy, seed: int) -> dict[str, np.ndarray]:
    """Run an episode in the layout of a seed, to success or to the suite's limit of steps.

    :returns: ``images``, ``instruction`` and ``proprio`` as ``policy.observation.observations``
        takes them, one for each chunk; ``success``, and the ``policy``'s fingerprint.
    """
    runner = EpisodeRunner(env, EpisodeSpec(env.suite, env.task, DRAWN_LAYOUT, seed))
    manifest, seen = policy.manifest, []
    run_closed_loop(
        policy, env, runner, env.instruction, on_chunk=lambda each, _: seen.append(each)
    )
    names = [camera.name for camera in manifest.cameras]
    arrays = {
        'images': np.array([[each.images[name] for name in names] for each in seen]),
        'instruction': np.array([each.instruction for each in seen]),
        'success': np.array(runner.success),
        'policy': np.array(manifest.fingerprint),
    }
    if manifest.proprio is not None:
        arrays['proprio'] = np.array([state_vector(manifest.proprio, each.state) for each in seen])
    return arrays


def _is_solved(path: Path, policy: Policy) -> bool:
    with np.load(path, allow_pickle=False) as file:
        if str(file['policy']) != policy.manifest.fingerprint:
            raise SimulationError(f'{path}: is of another policy; give another folder')
        return bool(file['success'])
