"""What a policy was given and what it answered, as a message for the recording."""

from __future__ import annotations

from collections.abc import Mapping

from lightvla_ros.errors import one_line
from lightvla_ros.msg import Inference
from lightvla_ros.nodes.conversions import time_message
from lightvla_ros.policy.policy import Prediction
from lightvla_ros.policy.state import RobotState
from lightvla_ros.runtime.inbox import Job


def inference_message(
    policy: str,
    job: Job,
    state: RobotState,
    image_topics: Mapping[str, str],
    frame_id: str,
    outcome: Prediction | Exception,
) -> Inference:
    """Fill an Inference.

    :param policy: Fingerprint of its folder.
    :param state: What the policy got, which is not always what was measured.
    :param image_topics: Resolved names, by camera.
    :param frame_id: Of the state.
    """
    message = Inference(policy=policy, instruction=job.instruction)
    message.header.stamp = time_message(job.stamp)
    message.header.frame_id = frame_id
    message.cameras = list(job.frames)
    message.image_topics = [image_topics[name] for name in job.frames]
    message.image_stamps = [time_message(frame.stamp) for frame in job.frames.values()]
    for name, part in vars(state).items():
        setattr(message, name, [] if part is None else part.tolist())
    if isinstance(outcome, Exception):
        message.error = one_line(outcome)[:80]  # at most 255 bytes
        return message
    message.backend, message.precision = outcome.backend[:32], outcome.precision
    message.kept_patches = outcome.kept_patches.tolist()
    message.actions = outcome.normalised.reshape(-1).tolist()
    return message
