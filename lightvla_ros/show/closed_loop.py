"""An episode as ``evaluate/direct.py`` runs it, with somebody who looks on."""

from __future__ import annotations

from collections.abc import Callable

from lightvla_ros.evaluate.direct import executed_actions, observe
from lightvla_ros.policy import Observation, Policy, Prediction
from lightvla_ros.sim.episode import EpisodeRunner
from lightvla_ros.sim.libero_env import LiberoEnv


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
