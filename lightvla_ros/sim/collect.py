"""Collects demonstrations of the memoryless expert, pushed about on its way (DART)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from lightvla_ros.contract.libero import CAMERAS, CHUNK_LENGTH, PROPRIO
from lightvla_ros.demonstrations.writer import DemonstrationWriter, Episode, Task
from lightvla_ros.policy.state import state_vector
from lightvla_ros.sim.disturbances import disturbances
from lightvla_ros.sim.expert.memoryless import MemorylessExpert
from lightvla_ros.sim.goals import Request, other_requests, own_request
from lightvla_ros.sim.libero_env import LiberoEnv, versions
from lightvla_ros.sim.segmentation import Segmentation

AFTER_THE_END = 3  # steps recorded of standing still
SLOWEST = 260  # steps; an episode that takes longer has gone wrong


@dataclass(frozen=True)
class Plan:
    """What is collected of each task.

    :param episodes: Successful ones of each task.
    :param first_seed: Of a task's first layout; the others follow.
    :param stride: Every how many steps the cameras look.
    :param others: Share of the episodes that are asked for another object of the scene.
    :param policy: Folder of the policy that drives (DAgger); None: the expert does.
    """

    folder: Path
    episodes: int
    first_seed: int = 100_000
    stride: int = 2
    others: float = 0.4
    camera_size: int = 128
    render: str = 'cheap'
    policy: Path | None = None


def collect_task(plan: Plan, suite: str, task: int) -> Iterator[tuple[int, int]]:
    """Collect one task; goes on where an earlier run of the same plan stopped.

    :returns: After each episode: 1 or 0 (it failed and was dropped), and its frames.
    """
    env = LiberoEnv(suite, task, camera_size=plan.camera_size, render=plan.render)
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
def _driver(policy_dir: Path | None) -> Iterator[Callable[[LiberoEnv, int, Plan], Episode | None]]:
    """Yield what runs an episode: the expert, or a policy that the expert labels."""
    if policy_dir is None:
        yield demonstrate
        return
    # not at the top: demonstrations of the expert need no engine
    from lightvla_ros.policy.policy import Policy
    from lightvla_ros.sim.closed_loop import check_for_libero
    from lightvla_ros.sim.dagger import visit

    policy = Policy.load(policy_dir, 'onnxruntime', 1)
    try:
        check_for_libero(policy.manifest)
        policy.require_verified()
        policy.replay_golden()
        yield partial(visit, policy=policy)
    finally:
        policy.close()


def describe(env: LiberoEnv, camera_size: int) -> Task:
    """Return what the task's file says of itself."""
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


def choose_request(env: LiberoEnv, rng: np.random.Generator, others: float) -> Request:
    """Draw what the episode is asked for, and make it the environment's goal."""
    choices = other_requests(env)
    request = own_request(env)
    if choices and rng.random() < others:
        request = choices[int(rng.integers(len(choices)))]
    env.goal = [list(request.goal)]
    return request


def demonstrate(env: LiberoEnv, seed: int, plan: Plan) -> Episode | None:
    """Run one episode; None when it failed.

    Frames are kept only where none of the next 8 actions was disturbed: there the labels are what
    the expert really did.
    """
    rng = np.random.default_rng(seed)
    request = choose_request(env, rng, plan.others)
    env.reset_layout(seed)
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


class Recorder:
    """Gathers what an episode's steps look like."""

    def __init__(self, env: LiberoEnv, camera_size: int) -> None:
        self._env = env
        self._size = camera_size
        self._segmentation = Segmentation(env.simulation)
        self._joints = env.simulation.robots[0]._ref_joint_pos_indexes
        self._model_file = env.simulation.model.get_xml()
        self.rows: list[int] = []
        self._actions, self._states, self._robot, self._angles = [], [], [], []
        self._images = {camera: [] for camera in CAMERAS}
        self._shown = {camera: [] for camera in CAMERAS}

    def step(self, action: np.ndarray, images: dict[str, np.ndarray] | None) -> None:
        """Record the state before an action, with images by camera where somebody looks."""
        if images is not None:
            self.rows.append(len(self._actions))
            for camera, image in images.items():
                self._images[camera].append(image)
                shown = self._segmentation.render(CAMERAS[camera], self._size)
                self._shown[camera].append(shown)
        data = self._env.simulation.sim
        self._actions.append(action)
        self._states.append(data.get_state().flatten())
        self._robot.append(self._env.state())
        self._angles.append(data.data.qpos[self._joints].copy())

    def episode(
        self,
        seed: int,
        request: Request,
        chunks: np.ndarray | None = None,
        policy: str = '',
        success: bool = True,
    ) -> Episode:
        """Put it together.

        :param chunks: [R, 8, 7] labels; by default the recorded actions from each look on. Behind
            the end the last one goes on: it stands still.
        """
        actions = np.array(self._actions)
        if chunks is None:
            steps = np.array(self.rows)[:, None] + np.arange(CHUNK_LENGTH)
            chunks = actions[np.minimum(steps, len(actions) - 1)]
        return Episode(
            seed,
            request.instruction,
            list(request.goal),
            actions,
            np.array(self._states),
            np.array([state_vector(PROPRIO, *state) for state in self._robot]),
            np.array([np.concatenate(state[::-1]) for state in self._robot])[
                :, [0, 1, 6, 7, 8, 2, 3, 4, 5]
            ],
            np.array(self._angles),
            np.array(self.rows),
            chunks,
            {camera: np.array(images) for camera, images in self._images.items()},
            {camera: np.array(images) for camera, images in self._shown.items()},
            self._model_file,
            policy,
            success,
        )
