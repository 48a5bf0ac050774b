"""From the messages of a job to a prediction."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import JointState

from lightvla_ros.images import ImageError
from lightvla_ros.inbox import Job
from lightvla_ros.nodes.conversions import (
    gripper_from_message,
    image_from_message,
    pose_from_message,
)
from lightvla_ros.policy import Observation, Policy, Prediction
from lightvla_ros.proprio import state_vector


class InputError(Exception):
    """A job's message turned out to be no good when it was decoded.

    :param source: The camera or topic it came from.
    :param code: One of ``reasons.REASONS``.
    """

    def __init__(self, source: str, code: str, text: str) -> None:
        super().__init__(text)
        self.source = source
        self.code = code


@dataclass(frozen=True)
class Result:
    """A prediction with what the node measured around it.

    :param decode: Seconds spent on decoding the messages.
    :param observation_age: From the observation's stamp to the start of inference [ns].
    """

    prediction: Prediction
    decode: float
    observation_age: int


def read_state(message: PoseStamped | JointState) -> dict[str, np.ndarray]:
    """Read a state message into the arguments of :func:`state_vector`.

    :raises MessageError: When it holds no state to act on.
    """
    if isinstance(message, PoseStamped):
        position, quaternion = pose_from_message(message)
        return {'position': position, 'quaternion': quaternion}
    return {'gripper_qpos': gripper_from_message(message)}


def run_job(policy: Policy, job: Job, age: int) -> Result:
    """Decode a job's messages and run the policy on them. Runs in the inference thread.

    :param age: Of the observation now [ns].
    :raises InputError: When an image cannot be decoded.
    """
    started = time.perf_counter()
    images = []
    for camera, message in zip(policy.manifest.cameras, job.frames, strict=True):
        try:
            images.append(image_from_message(message))
        except ImageError as error:
            raise InputError(camera.name, error.code, str(error)) from None
    proprio = None
    if policy.manifest.proprio is not None:
        parts = {}
        for message in job.states:
            parts.update(read_state(message))
        proprio = state_vector(policy.manifest.proprio, **parts)
    decoded = time.perf_counter()
    prediction = policy.infer(Observation(tuple(images), job.instruction, proprio))
    return Result(prediction, decoded - started, age)
