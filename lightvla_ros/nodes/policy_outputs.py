"""The policy node's publishers: chunks, holds, and the kept patches."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import Image

from lightvla_ros.contract import Manifest
from lightvla_ros.msg import ActionChunk, InferenceStats
from lightvla_ros.nodes.conversions import (
    ChunkHeader,
    chunk_to_message,
    duration_message,
    image_to_message,
    nanoseconds,
    time_message,
)
from lightvla_ros.nodes.policy_inputs import Result
from lightvla_ros.nodes.qos import wait_until_received
from lightvla_ros.nodes.recorder import NoRecorder
from lightvla_ros.policy.actions import Chunk, hold
from lightvla_ros.policy.policy import Prediction
from lightvla_ros.policy.preprocessor import upright_mask
from lightvla_ros.runtime.inbox import Job
from lightvla_ros.runtime.reasons import cut
from lightvla_ros.runtime.rolled_state import CommittedSteps

REFERENCES = {
    'measured_pose': ActionChunk.REFERENCE_MEASURED_POSE,
    'previous_target': ActionChunk.REFERENCE_PREVIOUS_TARGET,
}


@dataclass(frozen=True)
class SentChunk:
    """A chunk with steps that was published, and what it was made from, for those who look on.

    :param latency: From the stamp of the oldest image to the publication [ns].
    :param published: When it was published [ns, steady clock].
    """

    job: Job
    result: Result
    chunk: Chunk
    clamped: bool
    latency: int
    published: int


class ChunkOutput:
    """The publishers of one configured policy, and the numbering of its chunks.

    Not thread-safe: callers hold the inbox's lock, so that no chunk can follow a final hold.

    :param on_failure: Called with the name of the message that could not be published, and the
        error; nothing raises. A failed chunk is replaced by a hold without any text, because text
        is what a middleware may refuse.
    :param recorder: Gets every published chunk and hold.
    :ivar committed: The steps of the published chunks; a hold withdraws them.
    """

    def __init__(
        self,
        node: LifecycleNode,
        manifest: Manifest,
        values: SimpleNamespace,
        on_failure: Callable[[str, Exception], None],
        recorder: NoRecorder,
    ) -> None:
        self._node = node
        self._recorder = recorder
        self._manifest = manifest
        self._values = values
        self._on_failure = on_failure
        self._reference = REFERENCES[manifest.action.reference]
        self.start_session()
        self._still = hold(manifest.action.control_period)
        # Depth 1: a slow consumer gets the newest chunk, never an old motion. Volatile: a late
        # joiner gets no old motion either.
        self._publisher = node.create_lifecycle_publisher(
            ActionChunk,
            '~/action_chunk',
            QoSProfile(depth=1),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self._kept_publishers = [
            node.create_lifecycle_publisher(
                Image, f'~/debug/kept_patches/{camera.name}', QoSProfile(depth=1)
            )
            for camera in manifest.cameras
        ]

    def start_session(self) -> None:
        """Begin a new session with a new id and numbers from 0."""
        self.session_id = str(uuid.uuid4())
        self.moving = False
        self.chunks = 0
        self.sequence = 0
        speed = self._values.execution_speed
        self.committed = CommittedSteps(self._manifest.action.execution, speed)

    def send(
        self, chunk: Chunk, stamp: int, job: Job, stats: InferenceStats, clamped: bool
    ) -> bool:
        """Publish a chunk with steps; ``stamp`` is when its step 0 starts [ns, ROS time].

        :returns: Whether it was published; if not, a hold was published instead.
        """
        header = self._header(stamp, instruction=job.instruction, clamped=clamped, stats=stats)
        self.moving = self._publish(chunk, header)
        self.chunks += self.moving
        if self.moving:
            self.committed.add(chunk, stamp, job.stamp)
        else:
            self.committed.clear()
        return self.moving

    def hold(self, why: str, instruction: str, stats: InferenceStats | None = None) -> None:
        """Publish a chunk without steps, with the reason."""
        stats = stats or self.stats_message()
        header = self._header(self._now(), instruction=instruction, reason=why, stats=stats)
        self._publish(self._still, header)
        self.moving = False
        self.committed.clear()

    def send_kept_patches(self, prediction: Prediction, stamp: int) -> None:
        """Publish one mask per camera that has a subscriber: a pixel per patch, 255 if kept.

        The masks are upright, like the camera's images, and cover their centre crop.
        """
        rows, columns = self._manifest.patch_grid
        kept = np.zeros((len(self._kept_publishers), rows, columns), dtype=np.uint8)
        kept.reshape(-1)[prediction.kept_patches] = 255
        for publisher, camera, mask in zip(
            self._kept_publishers, self._manifest.cameras, kept, strict=True
        ):
            if publisher.get_subscription_count():
                mask = np.ascontiguousarray(upright_mask(mask, camera))
                try:
                    publisher.publish(image_to_message(mask, stamp, camera.name, 'mono8'))
                except Exception as error:
                    self._on_failure('kept_patches', error)

    def stats_message(
        self,
        job: Job | None = None,
        age: int = 0,
        prediction: Prediction | None = None,
        decode: float = 0.0,
    ) -> InferenceStats:
        """Fill an InferenceStats.

        :param age: The observation's age when inference started [ns].
        :param decode: Time spent on decoding images, a part of preprocessing [s].
        """
        message = InferenceStats(cameras=[camera.name for camera in self._manifest.cameras])
        if job is not None:
            message.observation_stamp = time_message(job.stamp)
            message.camera_skew = duration_message(job.skew)
            message.observation_age = duration_message(age)
        if prediction is not None:
            times = prediction.times
            message.preprocess_time = duration_message(nanoseconds(decode + times.preprocess))
            message.inference_time = duration_message(nanoseconds(times.inference))
            message.postprocess_time = duration_message(nanoseconds(times.postprocess))
            per_camera = self._manifest.patches_per_camera
            message.tokens_total = [per_camera] * len(self._manifest.cameras)
            message.tokens_kept = list(prediction.kept)
            message.backend = cut(prediction.backend, 32)  # the bounds in InferenceStats.msg
            message.precision = cut(prediction.precision, 16)
        return message

    def destroy(self) -> None:
        """Remove the publishers, once the last hold has been received."""
        wait_until_received(self._publisher)
        for publisher in (self._publisher, *self._kept_publishers):
            self._node.destroy_lifecycle_publisher(publisher)

    def _header(self, stamp: int, **more: Any) -> ChunkHeader:
        return ChunkHeader(
            stamp,
            valid_until=stamp + nanoseconds(self._values.start_window),
            sequence=self.sequence,
            session_id=self.session_id,
            reference=self._reference,
            frame_id=self._values.base_frame,
            child_frame_id=self._values.ee_frame,
            **more,
        )

    def _publish(self, chunk: Chunk, header: ChunkHeader) -> bool:
        # An inactive lifecycle publisher drops messages silently; they must not be counted.
        if not self._publisher.is_activated:
            return False
        try:
            self._send(chunk_to_message(chunk, header))
            return True
        except Exception as error:
            self._on_failure('chunk' if len(chunk) else 'hold', error)
        now = self._now()
        wordless = ChunkHeader(now, now, self.sequence, self.session_id, self._reference)
        try:
            self._send(chunk_to_message(self._still, wordless))
        except Exception as error:
            self._on_failure('hold', error)
        return False

    def _send(self, message: ActionChunk) -> None:
        self._publisher.publish(message)
        self.sequence += 1
        self._recorder.put(self._publisher.topic_name, message)

    def _now(self) -> int:
        return self._node.get_clock().now().nanoseconds
