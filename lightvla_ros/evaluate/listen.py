"""Tests whether a policy follows its instruction, with other tasks' instructions in each scene.

A policy that ignores the instruction can still solve every LIBERO task, because each scene comes
with one instruction.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from lightvla_ros.errors import SimulationError
from lightvla_ros.evaluate.direct import load_policy
from lightvla_ros.evaluate.episodes import EpisodeRecord, EvalOptions
from lightvla_ros.evaluate.listen_result import Answer, summarise
from lightvla_ros.evaluate.pool import Start, checked_manifest, gather
from lightvla_ros.evaluate.result import options_of, result_header
from lightvla_ros.policy.policy import Policy
from lightvla_ros.sim.closed_loop import run_closed_loop
from lightvla_ros.sim.episode import DRAWN_LAYOUT, EpisodeRunner, EpisodeSpec
from lightvla_ros.sim.goals import Request, other_requests, own_request
from lightvla_ros.sim.hand import Hand
from lightvla_ros.sim.libero_env import LiberoEnv


@dataclass(frozen=True)
class ListeningRecord(EpisodeRecord):
    """All requests tried in one initial state of a task, which one worker runs together."""

    answers: tuple[Answer, ...] = ()


def listen(
    options: EvalOptions, others: int, start: Start | None = None, method: str = 'spawn'
) -> dict[str, Any]:
    """Try requests in worker processes and return the result; no file is written.

    :param options: Its episodes are the scenes.
    :param others: Maximum number of other requests in each scene.
    :param start: Context in which a worker runs scenes, see :func:`run_pieces`; for tests.
    :param method: Start method of the worker processes.
    :raises ContractError: When the policy cannot be trusted or is not for LIBERO.
    :raises EvaluationError: When the scenes cannot be run.
    """
    manifest = checked_manifest(options)
    records = gather(options, start or partial(scenes, options, others), 'scene', method)
    answers = [answer for record in records for answer in getattr(record, 'answers', ())]
    return {
        **result_header(options, manifest),
        'options': {**options_of(options), 'others': others},
        **summarise(answers),
        'errors': [{**vars(r.spec), 'error': r.error} for r in records if r.error],
        'all_answers': [{**asdict(answer), 'right': answer.right} for answer in answers],
    }


@contextmanager
def scenes(
    options: EvalOptions, others: int, number: int
) -> Iterator[Callable[[EpisodeSpec], ListeningRecord]]:
    """Load the policy, and yield a function that tries the requests of a scene.

    :param number: Index of the worker (unused).
    :raises ContractError: When the policy cannot be trusted.
    :raises EngineError: When its engine cannot be loaded.
    """
    policy, _ = load_policy(options)
    listener = Listener(policy, options, others)
    try:
        yield listener.run
    finally:
        listener.close()
        policy.close()


class Listener:
    """Tries requests in this process."""

    def __init__(self, policy: Policy, options: EvalOptions, others: int) -> None:
        self._policy = policy
        self._replan = options.conditions.replan
        self._others = others
        self._environments = options.conditions.environments()

    def run(self, spec: EpisodeSpec) -> ListeningRecord:
        """Run an episode for each request of a scene.

        :raises SimulationError: When the scene does not exist or allows no other request.
        """
        started = time.monotonic()
        with self._environments.of(spec) as env:
            answers = tuple(self._answer(env, spec, r) for r in self._requests(env, spec))
        seconds = round(time.monotonic() - started, 2)
        return ListeningRecord(
            **vars(spec), seconds=seconds, renderer=env.renderer, answers=answers
        )

    def close(self) -> None:
        """Free the environment."""
        self._environments.close()

    def _requests(self, env: LiberoEnv, spec: EpisodeSpec) -> list[Request]:
        """Choose requests in turn: each initial state starts where the previous one stopped."""
        requests = other_requests(env)
        if not requests:
            raise SimulationError(
                f'{spec.suite} task {spec.task} allows no other request; use --suite libero_object '
                'or libero_spatial'
            )
        start = spec.seed if spec.init_state == DRAWN_LAYOUT else spec.init_state
        first = start * self._others
        count = min(self._others, len(requests))
        return [requests[(first + index) % len(requests)] for index in range(count)]

    def _answer(self, env: LiberoEnv, spec: EpisodeSpec, request: Request) -> Answer:
        env.goal = [list(request.goal)]
        try:
            runner = EpisodeRunner(env, spec)
            hand = Hand(env)
            run_closed_loop(
                self._policy, env, runner, request.instruction, self._replan, on_step=hand.look
            )
        finally:
            env.goal = env.task_goal
        return Answer(
            **vars(spec),
            instruction=request.instruction,
            instructed=request.object,
            own=own_request(env).object,
            reached=hand.first,
            fulfilled=runner.success,
            steps=runner.steps,
        )
