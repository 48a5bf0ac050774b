"""Gives the engine that will be deployed a recording's observations; writes how many agree.

A robot has no simulator, but its node can record what it sees. The answers recorded with it are
those of an engine that was verified, so another engine must repeat them within its tolerance.
"""

from __future__ import annotations

import datetime
from pathlib import Path

from lightvla_ros.contract import Trial
from lightvla_ros.errors import EvaluationError
from lightvla_ros.evaluate.rates import rate_of
from lightvla_ros.policy.policy import Policy
from lightvla_ros.replay.recorded import Hold, Recording
from lightvla_ros.replay.replay import Replay
from lightvla_ros.verify.verify import write_trial


def run_recording(policy_dir: Path, recording: Recording, policy: Policy) -> tuple[Trial, Replay]:
    """Run the recorded observations, and write into the manifest how many answers agree.

    An answer agrees when the same patches are kept and every step is within the tolerance.

    :param policy: Loaded from ``policy_dir`` with the engine that will be deployed.
    :returns: What was written, and the answers, whose ``faults()`` judge them as ``lightvla
        replay --tolerant`` does.
    :raises DemonstrationError: When there is no such recording, or no inference in it.
    :raises EvaluationError: When another policy was recorded, or no observation can be used;
        nothing is written then.
    """
    replay = Replay(policy, exact=False)
    for each in recording:
        if isinstance(each, Hold):
            continue
        if each.policy != policy.manifest.fingerprint:
            raise EvaluationError(
                f'{recording.path}: inference {each.number} is of another policy '
                f'({each.policy[:12]}) than {policy_dir} ({policy.manifest.fingerprint[:12]}), '
                'whose answers say nothing about this engine; record with this policy'
            )
        replay.run(each)
    count = len(replay.differences) + len(replay.failures)
    if not count:
        why = '; '.join(recording.notes) or f'none of {recording.read} inferences has an answer'
        raise EvaluationError(f'{recording.path}: no observation can be used: {why}')
    agreeing = sum(replay.agrees(each) for each in replay.differences)
    trial = Trial(
        'observations',
        f'{recording.path.name}, recorded with {", ".join(sorted(replay.engines))}',
        datetime.date.today().isoformat(),
        count,
        agreeing,
        **rate_of(agreeing, count),
    )
    write_trial(policy_dir, policy.engine.fingerprint, trial)
    return trial, replay
