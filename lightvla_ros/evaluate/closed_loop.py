"""A policy drives an episode: it looks, executes steps of its chunk, and looks again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lightvla_ros.contract import Manifest
from lightvla_ros.contract.libero import ROTATION_SCALE, TRANSLATION_SCALE
from lightvla_ros.policy.actions import Chunk, limit_chunk, osc_from_chunk
from lightvla_ros.policy.policy import Observation, Policy, Prediction
from lightvla_ros.policy.state import state_vector
from lightvla_ros.sim.episode import EpisodeRunner
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

    :param runner: At the start of the episode.
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
