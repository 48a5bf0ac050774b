"""Recorder of an episode, and pushes on executed actions that the expert must correct (DART)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lightvla_ros.contract.libero import CAMERAS, CHUNK_LENGTH, PROPRIO
from lightvla_ros.demonstrations.writer import Episode
from lightvla_ros.policy.state import state_vector
from lightvla_ros.sim.exchange import exchange_places
from lightvla_ros.sim.goals import Request, other_requests, own_request
from lightvla_ros.sim.libero_env import LiberoEnv
from lightvla_ros.sim.segmentation import Segmentation

CLEAN_EPISODES = 0.25  # share without any push
OTHER_FIXTURES = 0.75  # share of the layouts beside fixtures of another draw
CLOSING = 0.2  # share of the pushes in which an open hand also closes, as after a failed grasp


def disturbances(rng: np.random.Generator, steps: int) -> np.ndarray:
    """Draw the pushes that are added to the executed actions of an episode.

    A push lasts 2 to 6 steps, and 10 to 31 quiet steps follow. In some pushes, of 4 to 9 steps, an
    open hand closes; a closed hand never opens. The policy learns the undisturbed action (Laskey et
    al. 2017, arXiv 1703.09327).

    :returns: float64 [steps, 7], in OSC_POSE units; zero in steps without a push.
    """
    push = np.zeros((steps, 7))
    if rng.random() < CLEAN_EPISODES:
        return push
    step = int(rng.integers(0, 12))
    while step < steps:
        closing = rng.random() < CLOSING
        length = int(rng.integers(4, 10) if closing else rng.integers(2, 7))
        strength = 1.3 * rng.uniform(0.3, 1.0)
        move = rng.uniform(-1, 1, 3) * strength
        turn = [*rng.normal(0, 0.05, 2), rng.uniform(-0.35, 0.35)]
        push[step : step + length] = [*move, *turn, 2 * closing]
        step += length + int(rng.integers(10, 32))
    return push


@dataclass(frozen=True)
class CollectPlan:
    """Options of a collection.

    :param episodes: Number of successful episodes of each task.
    :param first_seed: Seed of a task's first layout; the next layouts count up from it.
    :param stride: Steps between two pictures.
    :param others: Share of the episodes with a request for another object of the scene.
    :param looks: Share of the episodes with other colours and other light (``sim/looks.py``).
    :param exchanged: Share of the episodes in which two things exchange places where they can
        (``sim/exchange.py``).
    :param distractor: Whether one thing more stands on the table of LIBERO-Spatial, another one in
        each task (``sim/distractor.py``).
    :param policy: Folder of the policy that drives (DAgger); None if the expert drives.
    :param fixtures: Seed of the fixtures beside which most layouts stand; None draws others for
        each. Every evaluation on saved states has those of its own seed, which is 0 by default.
    """

    folder: Path
    episodes: int
    first_seed: int = 100_000
    stride: int = 2
    others: float = 0.4
    looks: float = 0.0
    camera_size: int = 128
    render: str = 'cheap'
    policy: Path | None = None
    fixtures: int | None = None
    exchanged: float = 0.0
    distractor: bool = False


def start(env: LiberoEnv, seed: int, plan: CollectPlan, rng: np.random.Generator) -> None:
    """Start from the layout of a seed, mostly beside fixtures of another draw.

    Saved states hold no poses of fixtures: there a bowl may be up to 2 cm nearer to the wall of its
    drawer than the task's regions put it, and has to be grasped from another side.
    """
    fixtures = None
    if rng.random() < OTHER_FIXTURES:
        fixtures = int(rng.integers(1, 2**31)) if plan.fixtures is None else plan.fixtures
    env.reset_layout(seed, fixtures)
    # no number is drawn for a share of 0, so that plans from before this option draw what they did
    if plan.exchanged and rng.random() < plan.exchanged:
        exchange_places(env, rng)
    if rng.random() < plan.looks:
        env.draw_looks(rng)


class Recorder:
    """Records the steps of an episode."""

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
        """Record the state before an action; images are given by camera in recorded frames."""
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
        """Return the recorded episode.

        :param chunks: [R, 8, 7] labels; by default the recorded actions from each frame on. After
            the end the last action, in which the arm stands still, is repeated.
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
            np.array([state_vector(PROPRIO, state) for state in self._robot]),
            np.array([np.concatenate([s.fingers, s.position, s.quaternion]) for s in self._robot]),
            np.array(self._angles),
            np.array(self.rows),
            chunks,
            {camera: np.array(images) for camera, images in self._images.items()},
            {camera: np.array(images) for camera, images in self._shown.items()},
            self._model_file,
            policy,
            success,
        )


def choose_request(env: LiberoEnv, rng: np.random.Generator, others: float) -> Request:
    """Draw the episode's request, and make it the environment's goal."""
    choices = other_requests(env)
    request = own_request(env)
    if choices and rng.random() < others:
        request = choices[int(rng.integers(len(choices)))]
    env.goal = [list(request.goal)]
    return request
