"""Episodes without ROS: the same numbers reach the simulator as through the node and the bridge."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from lightvla_ros.actions import Chunk, osc_from_chunk
from lightvla_ros.contract import ContractError, Manifest
from lightvla_ros.evaluate.chosen_tokens import ChosenTokens, TokenChooser
from lightvla_ros.evaluate.errors import EvaluationError
from lightvla_ros.evaluate.options import Conditions, EvalOptions
from lightvla_ros.evaluate.record import EpisodeRecord, state_digest
from lightvla_ros.policy import Observation, Policy, Prediction
from lightvla_ros.proprio import state_vector
from lightvla_ros.safety import limit_chunk
from lightvla_ros.sim.episode import EpisodeRunner, EpisodeSpec
from lightvla_ros.sim.libero_env import (
    CAMERAS,
    CONTROL_PERIOD,
    ROTATION_SCALE,
    TRANSLATION_SCALE,
    LiberoEnv,
)
from lightvla_ros.sim.recording import end_state

# What the node's parameters of these names are by default (a test compares them): a policy must not
# do better here than where its steps are limited.
MAX_STEP_TRANSLATION = 0.087  # m
MAX_STEP_ROTATION = 0.87  # rad


@contextmanager
def direct_episodes(
    options: EvalOptions, number: int
) -> Iterator[Callable[[EpisodeSpec], EpisodeRecord]]:
    """Load the policy, and yield what runs an episode.

    :param number: Of the worker; of no use here.
    :raises ContractError: When the policy cannot be trusted or is none for LIBERO.
    :raises EngineError: When its engine cannot be loaded.
    """
    policy, chooser = load_policy(options)
    runner = DirectRunner(policy, options.conditions, chooser)
    try:
        yield runner.run
    finally:
        runner.close()
        policy.close()


def load_policy(options: EvalOptions) -> tuple[Policy, TokenChooser | None]:
    """Load and check the policy as the node does, and overrule its pruner where that is asked for.

    :returns: The policy, and what has to be told of each episode's start.
    """
    conditions = options.conditions
    more = {'provider': conditions.provider} if conditions.engine == 'onnxruntime' else {}
    policy = Policy.load(options.policy, conditions.engine, conditions.threads, **more)
    try:
        manifest = policy.manifest
        check_for_libero(manifest)
        if conditions.engine != 'torch':  # that one is what the others are verified against
            policy.require_verified()
            policy.replay_golden()
    except BaseException:
        policy.close()
        raise
    prunes = manifest.model is None or manifest.model.config['pruning']['method'] != 'off'
    if not prunes and conditions.ablation != 'none':
        policy.close()
        raise EvaluationError(f'--ablation: {options.policy} does not prune, nothing to replace')
    if not prunes or (conditions.pruning == 'on' and conditions.ablation == 'none'):
        return policy, None
    chooser = TokenChooser(conditions)
    policy.engine = ChosenTokens(policy.engine, chooser, len(manifest.cameras))
    return policy, chooser


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
    if round(action.control_period * 1e9) != round(CONTROL_PERIOD * 1e9):
        raise ContractError(
            f'{manifest.name}: control_period is {action.control_period:g} s; LIBERO runs at '
            f'{CONTROL_PERIOD:g} s'
        )


class DirectRunner:
    """Runs episodes in this process. The last task's environment is kept: a scene takes 10 s."""

    def __init__(
        self, policy: Policy, conditions: Conditions, chooser: TokenChooser | None = None
    ) -> None:
        self._policy = policy
        self._conditions = conditions
        self._chooser = chooser
        self._env: LiberoEnv | None = None

    def run(self, spec: EpisodeSpec) -> EpisodeRecord:
        """Run an episode. Whatever it raises is an error of the episode, no failure of the policy.

        :raises SimulationError: When the episode does not exist.
        :raises RenderingError: When there is no way to render.
        :raises EngineError: When the engine fails.
        :raises PolicyOutputError: When the policy's output must not move a robot.
        """
        try:
            return self._run(spec)
        except BaseException:
            self.close()  # an environment that failed is not trusted again
            raise

    def close(self) -> None:
        """Free the environment."""
        if self._env is not None:
            self._env.close()
            self._env = None

    def _run(self, spec: EpisodeSpec) -> EpisodeRecord:
        env = self._prepare(spec)
        policy, cameras = self._policy, self._policy.manifest.cameras
        started = time.monotonic()
        runner = EpisodeRunner(env, spec)
        if self._chooser is not None:
            self._chooser.start_episode(spec)
        instruction = policy.check_instruction(env.instruction)
        predictions = []
        while not runner.finished:
            prediction = policy.infer(observe(env, policy.manifest, instruction))
            predictions.append(prediction)
            for action in executed_actions(prediction.chunk)[: self._conditions.replan]:
                if runner.step(action):
                    break
        return EpisodeRecord(
            **vars(spec),
            instruction=env.instruction,
            success=runner.success,
            steps=runner.steps,
            seconds=round(time.monotonic() - started, 2),
            renderer=env.renderer,
            end_state=state_digest(end_state(env)),
            kept={
                camera.name: [prediction.kept[index] for prediction in predictions]
                for index, camera in enumerate(cameras)
            },
            latency_ms=[_latency_ms(prediction) for prediction in predictions],
        )

    def _prepare(self, spec: EpisodeSpec) -> LiberoEnv:
        """Build the environment, unless the last one will do."""
        env, conditions = self._env, self._conditions
        if env is None or (env.suite, env.task) != (spec.suite, spec.task):
            self.close()
            env = self._env = LiberoEnv(
                spec.suite, spec.task, conditions.camera_size, conditions.render
            )
            env.max_steps = min(env.max_steps, conditions.max_steps or env.max_steps)
        return env


def observe(env: LiberoEnv, manifest: Manifest, instruction: str) -> Observation:
    """Render and read what the policy takes. Rendering takes longer than 5 steps of physics."""
    images = env.render()
    proprio = None
    if manifest.proprio is not None:
        position, quaternion, fingers = env.state()
        proprio = state_vector(manifest.proprio, position, quaternion, fingers)
    return Observation(
        tuple(images[camera.name] for camera in manifest.cameras), instruction, proprio
    )


def executed_actions(chunk: Chunk) -> np.ndarray:
    """Return the OSC_POSE actions [N, 7] that the bridge would execute of a chunk.

    The node limits the steps; ``ActionChunk`` carries the gripper in float32; who reads one makes
    its quaternions unit again. To the last bit, so that episodes end in the same state.

    :raises PolicyOutputError: When a step is far over the limits.
    """
    chunk, _ = limit_chunk(chunk, MAX_STEP_TRANSLATION, MAX_STEP_ROTATION)
    norms = np.linalg.norm(chunk.rotations, axis=1)
    chunk = replace(
        chunk,
        rotations=chunk.rotations / norms[:, None],
        gripper=chunk.gripper.astype(np.float32).astype(np.float64),
    )
    return osc_from_chunk(chunk, TRANSLATION_SCALE, ROTATION_SCALE)


def _latency_ms(prediction: Prediction) -> float:
    times = prediction.times
    return round(1e3 * (times.preprocess + times.inference), 2)
