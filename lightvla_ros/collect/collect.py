"""Collects demonstrations of the memoryless expert, disturbed by pushes (DART)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from lightvla_ros.collect.recorder import CollectPlan, Recorder, choose_request, disturbances, start
from lightvla_ros.contract.libero import CHUNK_LENGTH
from lightvla_ros.demonstrations.writer import DemonstrationWriter, Episode, Task
from lightvla_ros.sim.distractor import draw_distractor
from lightvla_ros.sim.expert.memoryless import MemorylessExpert
from lightvla_ros.sim.libero_env import LiberoEnv, versions
from lightvla_ros.sim.segmentation import Segmentation

AFTER_THE_END = 3  # steps recorded after the end, in which the arm stands still
SLOWEST = 260  # steps; a longer episode has failed


def collect_task(plan: CollectPlan, suite: str, task: int) -> Iterator[tuple[int, int]]:
    """Collect one task; continue where an earlier run of the same plan stopped.

    :returns: For each episode: 1, or 0 if it failed and was dropped, and its number of frames.
    """
    thing = draw_distractor(plan.first_seed, task) if plan.distractor else None
    env = LiberoEnv(suite, task, camera_size=plan.camera_size, render=plan.render, distractor=thing)
    try:
        env.reset_layout(plan.first_seed)
        with (
            _driver(plan.policy) as run,
            DemonstrationWriter(plan.folder / suite, describe(env, plan.camera_size)) as writer,
        ):
            tried = writer.seeds
            if writer.episodes:
                yield writer.episodes, writer.frames
            seed = plan.first_seed
            while writer.episodes < plan.episodes:
                if seed not in tried:
                    episode = run(env, seed, plan)
                    if episode is None:
                        writer.drop(seed)
                        yield 0, 0
                    else:
                        writer.add(episode)
                        yield 1, len(episode.rows)
                seed += 1
    finally:
        env.close()


@contextmanager
def _driver(
    policy_dir: Path | None,
) -> Iterator[Callable[[LiberoEnv, int, CollectPlan], Episode | None]]:
    """Yield a function that runs an episode with the expert, or with a policy that it labels."""
    if policy_dir is None:
        yield demonstrate
        return
    # imported here because demonstrations of the expert need no engine
    from lightvla_ros.collect.dagger import visit
    from lightvla_ros.policy.policy import Policy
    from lightvla_ros.sim.closed_loop import check_for_libero

    with Policy.load(policy_dir) as policy:
        check_for_libero(policy.manifest)
        yield partial(visit, policy=policy)


def describe(env: LiberoEnv, camera_size: int) -> Task:
    """Return the description that is stored in the task's file."""
    return Task(
        env.suite,
        env.task,
        env.instruction,
        env.bddl,
        env.render_setting,
        Segmentation(env.simulation).names,
        camera_size,
        versions(),
    )


def demonstrate(env: LiberoEnv, seed: int, plan: CollectPlan) -> Episode | None:
    """Run one episode; return None if it failed.

    A frame is kept only if none of its next 8 actions was disturbed, so that the labels are the
    actions that were executed.
    """
    rng = np.random.default_rng(seed)
    request = choose_request(env, rng, plan.others)
    start(env, seed, plan, rng)
    recorder = Recorder(env, plan.camera_size)
    expert = MemorylessExpert(env)
    push = disturbances(rng, SLOWEST)
    quiet = ~np.lib.stride_tricks.sliding_window_view(
        np.pad(push.any(axis=1), (0, CHUNK_LENGTH)), CHUNK_LENGTH
    ).any(axis=1)
    phase, ended = int(rng.integers(plan.stride)), 0
    for step in range(SLOWEST):
        action = expert.act()
        ended += expert.finished
        look = quiet[step] and step % plan.stride == phase and not ended
        recorder.step(action, env.render() if look else None)
        if ended > AFTER_THE_END:
            break
        env.step(np.clip(action + push[step], -1, 1))
    if not ended or not env.solved or not recorder.rows:
        return None
    return recorder.episode(seed, request)
