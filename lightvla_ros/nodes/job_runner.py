"""From the messages of a job to a prediction."""

from __future__ import annotations

import time
from dataclasses import dataclass

from lightvla_ros.nodes.picture_reader import PictureReader
from lightvla_ros.nodes.state_reader import StateReader
from lightvla_ros.policy.policy import Observation, Policy, Prediction
from lightvla_ros.policy.state import Outside, out_of_bounds, state_vector
from lightvla_ros.runtime.inbox import Job


@dataclass(frozen=True)
class Result:
    """A prediction with what the node measured around it.

    :param decode: Seconds spent on decoding the messages.
    :param observation_age: From the observation's stamp to the start of inference [ns].
    :param outside: The state's numbers that were cut off at the policy's bounds.
    """

    prediction: Prediction
    decode: float
    observation_age: int
    outside: tuple[Outside, ...] = ()


def run_job(
    policy: Policy, job: Job, age: int, pictures: PictureReader, states: StateReader
) -> Result:
    """Decode a job's messages and run the policy on them. Runs in the inference thread.

    :param age: Of the observation now [ns].
    :param pictures: What reads the job's images.
    :param states: What reads the job's state messages.
    :raises InputError: When an image or a state must not be acted on.
    """
    started = time.perf_counter()
    images = pictures.read(job)
    proprio, outside = None, ()
    if policy.manifest.proprio is not None:
        parts = {}
        for state in job.states.values():
            parts.update(states.read(state.message))
        proprio = state_vector(policy.manifest.proprio, **parts)
        outside = tuple(out_of_bounds(policy.manifest.proprio, **parts))
    decoded = time.perf_counter()
    prediction = policy.infer(Observation(images, job.instruction, proprio))
    return Result(prediction, decoded - started, age, outside)
