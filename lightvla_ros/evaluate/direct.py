"""Episodes without ROS; the simulator gets the same numbers as through the node and the bridge."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lightvla_ros.engine import options_of
from lightvla_ros.errors import EvaluationError
from lightvla_ros.evaluate.chosen_tokens import ChosenTokens, TokenChooser
from lightvla_ros.evaluate.compared_engine import ComparedEngine
from lightvla_ros.evaluate.episodes import Conditions, EpisodeRecord, EvalOptions, state_digest
from lightvla_ros.policy.policy import Policy, Prediction
from lightvla_ros.sim.closed_loop import check_for_libero, run_closed_loop
from lightvla_ros.sim.episode import EpisodeRunner, EpisodeSpec
from lightvla_ros.sim.libero_env import LiberoEnv
from lightvla_ros.sim.recording import end_state

Chooser = TokenChooser | ComparedEngine  # what chooses tokens instead of the policy's pruner


@contextmanager
def direct_episodes(
    options: EvalOptions, number: int
) -> Iterator[Callable[[EpisodeSpec], EpisodeRecord]]:
    """Load the policy, and yield a function that runs an episode.

    :param number: Index of the worker (unused).
    :raises ContractError: When the policy cannot be trusted or is not for LIBERO.
    :raises EngineError: When its engine cannot be loaded.
    """
    policy, chooser = load_policy(options)
    runner = DirectRunner(policy, options.conditions, chooser)
    try:
        yield runner.run
    finally:
        runner.close()
        policy.close()


def load_policy(options: EvalOptions) -> tuple[Policy, Chooser | None]:
    """Load and check the policy as the node does, and replace its kept tokens if requested.

    :returns: The policy, and what chooses its tokens, whose ``start_episode`` must be called.
    """
    conditions = options.conditions
    more = options_of(
        conditions.engine, conditions.provider, conditions.precision, conditions.compiled
    )
    policy = Policy.load(options.policy, conditions.engine, conditions.threads, **more)
    try:
        check_for_libero(policy.manifest)
    except BaseException:
        policy.close()
        raise
    if conditions.prune is not None:
        try:
            engine = ComparedEngine(policy.engine, conditions.prune, conditions.ablation_seed)
        except BaseException:
            policy.close()
            raise
        policy.engine = engine
        return policy, engine
    manifest = policy.manifest
    prunes = manifest.model is None or manifest.model.config['pruning']['method'] != 'off'
    if not prunes and conditions.ablation != 'none':
        policy.close()
        raise EvaluationError(
            f'--ablation: {options.policy} does not prune, so there are no kept tokens to replace'
        )
    if not prunes or (conditions.pruning == 'on' and conditions.ablation == 'none'):
        return policy, None
    chooser = TokenChooser(conditions)
    policy.engine = ChosenTokens(policy.engine, chooser, len(manifest.cameras))
    return policy, chooser


class DirectRunner:
    """Runs episodes in this process."""

    def __init__(
        self, policy: Policy, conditions: Conditions, chooser: Chooser | None = None
    ) -> None:
        self._policy = policy
        self._replan = conditions.replan
        self._chooser = chooser
        self._environments = conditions.environments()

    def run(self, spec: EpisodeSpec) -> EpisodeRecord:
        """Run an episode. An exception is an error of the episode, not a failure of the policy.

        :raises SimulationError: When the episode does not exist.
        :raises RenderingError: When rendering is impossible.
        :raises EngineError: When the engine fails.
        :raises PolicyOutputError: When the policy's output must not move a robot.
        """
        with self._environments.of(spec) as env:
            return self._run(env, spec)

    def close(self) -> None:
        """Free the environment."""
        self._environments.close()

    def _run(self, env: LiberoEnv, spec: EpisodeSpec) -> EpisodeRecord:
        started = time.monotonic()
        runner = EpisodeRunner(env, spec)
        if self._chooser is not None:
            self._chooser.start_episode(spec)
        predictions: list[Prediction] = []
        run_closed_loop(
            self._policy,
            env,
            runner,
            env.instruction,
            self._replan,
            on_chunk=lambda _, prediction: predictions.append(prediction),
        )
        return EpisodeRecord(
            **vars(spec),
            instruction=env.instruction,
            success=runner.success,
            steps=runner.steps,
            seconds=round(time.monotonic() - started, 2),
            renderer=env.renderer,
            end_state=state_digest(end_state(env)),
            motion=runner.motion,
            kept={
                camera.name: [prediction.kept[index] for prediction in predictions]
                for index, camera in enumerate(self._policy.manifest.cameras)
            },
            latency_ms=[_latency_ms(prediction) for prediction in predictions],
        )


def _latency_ms(prediction: Prediction) -> float:
    times = prediction.times
    return round(1e3 * (times.preprocess + times.inference), 2)
