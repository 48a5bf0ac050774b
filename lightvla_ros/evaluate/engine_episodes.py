"""Runs episodes on the engine that will be deployed, and writes the success into the manifest.

The numbers of an engine may agree within tolerances and a robot still do worse; episodes say it.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

from lightvla_ros.contract import Trial
from lightvla_ros.contract.suites import SUITES
from lightvla_ros.engine import options_of
from lightvla_ros.errors import ArgumentError, EvaluationError
from lightvla_ros.evaluate.episodes import Conditions, EvalOptions
from lightvla_ros.evaluate.evaluate import evaluate
from lightvla_ros.policy.policy import Policy
from lightvla_ros.sim.episode import EpisodeSpec
from lightvla_ros.verify.verify import write_trial


def spread(suites: Sequence[str], count: int) -> tuple[EpisodeSpec, ...]:
    """Choose episodes: every task once, then every task from the next saved initial state.

    Those of a smaller count are the first of a larger one, so a run can be extended.

    :raises ArgumentError: When the suites have fewer episodes.
    """
    found = [
        EpisodeSpec(suite, task, init, 0)
        for init in range(max(SUITES[suite].init_states for suite in suites))
        for task in range(max(SUITES[suite].tasks for suite in suites))
        for suite in suites
        if task < SUITES[suite].tasks and init < SUITES[suite].init_states
    ]
    if count > len(found):
        raise ArgumentError(f'--episodes {count}: {" and ".join(suites)} have {len(found)}')
    return tuple(found[:count])


def run_episodes(
    policy_dir: Path, specs: Sequence[EpisodeSpec], conditions: Conditions, workers: int, out: Path
) -> Trial:
    """Run episodes on an engine that was verified, and write its success into the manifest.

    :param specs: At least one.
    :param out: File of the result, as ``lightvla eval`` writes it; its journal is resumed.
    :raises ContractError: When the policy is not for LIBERO, or the engine was not verified.
    :raises EngineError: When the engine cannot be loaded.
    :raises EvaluationError: When an episode could not be run; nothing is written then.
    """
    options = options_of(
        conditions.engine, conditions.provider, conditions.precision, conditions.compiled
    )
    with Policy.load(policy_dir, conditions.engine, conditions.threads, **options) as policy:
        fingerprint = policy.engine.fingerprint
    out.parent.mkdir(parents=True, exist_ok=True)
    document = evaluate(EvalOptions(policy_dir, tuple(specs), conditions, out, workers=workers))
    if document['errors']:
        first = document['errors'][0]['error']
        raise EvaluationError(
            f'{len(document["errors"])} of {len(specs)} episodes could not be run: {first}; run '
            'the same command again to continue'
        )
    suites = ', '.join(dict.fromkeys(spec.suite for spec in specs))
    trial = Trial(
        'episodes',
        f'{suites}, {conditions.render} rendering',
        datetime.date.today().isoformat(),
        document['episodes'],
        document['successes'],
        **document['success'],
    )
    write_trial(policy_dir, fingerprint, trial)
    return trial
