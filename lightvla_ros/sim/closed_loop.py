"""A policy drives an episode: it observes, executes steps of its chunk, and observes again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from lightvla_ros.contract import Manifest
from lightvla_ros.contract.libero import CAMERAS, CONTROL_PERIOD, ROTATION_SCALE, TRANSLATION_SCALE
from lightvla_ros.errors import ContractError
from lightvla_ros.policy.actions import Chunk, limit_chunk, osc_from_chunk
from lightvla_ros.policy.observation import Observation
from lightvla_ros.policy.policy import Policy, Prediction
from lightvla_ros.sim.episode import EpisodeRunner, EpisodeSpec
from lightvla_ros.sim.libero_env import LiberoEnv

# What the node's parameters of these names are by default (a test compares them): a policy must not
# do better here than where its steps are limited.
MAX_STEP_TRANSLATION = 0.087  # m
MAX_STEP_ROTATION = 0.87  # rad


def run_closed_loop(
    policy: Policy,
    env: LiberoEnv,
    runner: EpisodeRunner,
    instruction: str,
    replan: int | None = None,
    on_chunk: Callable[[Observation, Prediction], None] = lambda *_: None,
    on_step: Callable[[], None] = lambda: None,
) -> None:
    """Run an episode to its end.

    :param runner: Runner at the start of the episode.
    :param instruction: What the policy is told; the goal is the environment's.
    :param replan: Steps executed of each chunk; None for all of them.
    :param on_chunk: Called before a chunk is executed.
    :param on_step: Called after every step.
    :raises InstructionError: When the policy cannot take the instruction.
    :raises EngineError: When the engine fails.
    :raises PolicyOutputError: When the policy's output must not move a robot.
    """
    instruction = policy.check_instruction(instruction)
    while not runner.finished:
        observation = observe(env, policy.manifest, instruction)
        prediction = policy.infer(observation)
        on_chunk(observation, prediction)
        for action in executed_actions(prediction.chunk)[:replan]:
            finished = runner.step(action)
            on_step()
            if finished:
                break


def observe(env: LiberoEnv, manifest: Manifest, instruction: str) -> Observation:
    """Render and read the policy's inputs. Rendering takes longer than 5 steps of physics."""
    images = env.render()
    seen = {camera.name: images[camera.name] for camera in manifest.cameras}
    return Observation(seen, instruction, env.state())


def executed_actions(chunk: Chunk) -> np.ndarray:
    """Return the OSC_POSE actions [N, 7] that the bridge would execute of a chunk.

    The node limits the steps, ``ActionChunk`` carries the gripper in float32, and its reader
    normalises the quaternions. All of this is repeated here to the last bit, so that episodes end
    in the same state.

    :raises PolicyOutputError: When a step is far beyond the limits.
    """
    chunk, _ = limit_chunk(chunk, MAX_STEP_TRANSLATION, MAX_STEP_ROTATION)
    norms = np.linalg.norm(chunk.rotations, axis=1)
    chunk = replace(
        chunk,
        rotations=chunk.rotations / norms[:, None],
        gripper=chunk.gripper.astype(np.float32).astype(np.float64),
    )
    return osc_from_chunk(chunk, TRANSLATION_SCALE, ROTATION_SCALE)


class Environments:
    """Builds environments and keeps the last task's, as a scene takes 10 s to build. Close it.

    :param camera_size: Height and width of rendered images [px].
    :param render: ``cheap`` or ``standard``.
    :param max_steps: Shorter limit of steps than the suite's; None for the suite's.
    """

    def __init__(self, camera_size: int, render: str, max_steps: int | None = None) -> None:
        self._camera_size = camera_size
        self._render = render
        self._max_steps = max_steps
        self._env: LiberoEnv | None = None

    @contextmanager
    def of(self, spec: EpisodeSpec) -> Iterator[LiberoEnv]:
        """Yield the environment of an episode's task, not reset; one that fails is thrown away.

        :raises SimulationError: When the suite or task does not exist.
        """
        try:
            yield self._prepare(spec)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Free the environment."""
        if self._env is not None:
            self._env.close()
            self._env = None

    def _prepare(self, spec: EpisodeSpec) -> LiberoEnv:
        env = self._env
        if env is None or (env.suite, env.task) != (spec.suite, spec.task):
            self.close()
            env = self._env = LiberoEnv(spec.suite, spec.task, self._camera_size, self._render)
            env.max_steps = min(env.max_steps, self._max_steps or env.max_steps)
        return env


def check_for_libero(manifest: Manifest) -> None:
    """Refuse a policy that LIBERO's controller cannot follow, as the bridge does.

    :raises ContractError: Naming what does not fit.
    """
    for camera in manifest.cameras:
        if camera.name not in CAMERAS:
            raise ContractError(
                f'{manifest.name}: LIBERO has the cameras {", ".join(CAMERAS)}, not {camera.name!r}'
            )
    action = manifest.action
    if action.reference != 'measured_pose':
        raise ContractError(
            f'{manifest.name}: action.reference is {action.reference}; OSC_POSE adds deltas to the '
            'measured pose alone'
        )
    if action.execution != 'spring':
        raise ContractError(
            f'{manifest.name}: action.execution is {action.execution}; LIBERO takes a step as a '
            'spring that pulls at the arm'
        )
    if round(action.control_period * 1e9) != round(CONTROL_PERIOD * 1e9):
        raise ContractError(
            f'{manifest.name}: control_period is {action.control_period:g} s; LIBERO runs at '
            f'{CONTROL_PERIOD:g} s'
        )
