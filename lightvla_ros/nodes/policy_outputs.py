"""What leaves the policy node: chunks, holds, and which patches were kept."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import Image

from lightvla_ros.contract import Manifest
from lightvla_ros.msg import ActionChunk, InferenceStats
from lightvla_ros.nodes.conversions import (
    chunk_to_message,
    duration_message,
    image_to_message,
    time_message,
)
from lightvla_ros.nodes.policy_parameters import nanoseconds
from lightvla_ros.policy.actions import Chunk, hold
from lightvla_ros.policy.images import upright_mask
from lightvla_ros.policy.policy import Prediction
from lightvla_ros.runtime.inbox import Job
from lightvla_ros.runtime.reasons import cut

REFERENCES = {
    'measured_pose': ActionChunk.REFERENCE_MEASURED_POSE,
    'previous_target': ActionChunk.REFERENCE_PREVIOUS_TARGET,
}


class ChunkOutput:
    """The publishers of one configured policy, and the session's numbering.

    Not thread-safe: callers hold the inbox's lock, so that no chunk can follow the hold that was
    meant to be the last word.

    :param on_failure: Told what could not be published, and why; nothing raises. In the place of
        a chunk goes a hold without any text, since text is what a middleware may refuse.
    """

    def __init__(
        self,
        node: LifecycleNode,
        manifest: Manifest,
        values: SimpleNamespace,
        on_failure: Callable[[str, Exception], None],
    ) -> None:
        self.moving = False
        self.chunks = 0
        self.sequence = 0
        self.session_id = ''
        self._node = node
        self._manifest = manifest
        self._values = values
        self._on_failure = on_failure
        # Depth 1: a slow consumer gets the newest chunk, never an old motion. Volatile: nor does a
        # late joiner.
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
        """Begin a new session: new id, numbering from 0."""
        self.session_id = str(uuid.uuid4())
        self.moving = False
        self.chunks = 0
        self.sequence = 0

    def send(
        self, chunk: Chunk, stamp: int, job: Job, stats: InferenceStats, clamped: bool
    ) -> bool:
        """Publish a chunk with steps; ``stamp`` is when its step 0 starts [ns, ROS time].

        :returns: Whether it was published; a hold was if it was not.
        """
        self.moving = self._publish(chunk, stamp, job.instruction, stats, clamped, '')
        self.chunks += self.moving
        return self.moving

    def hold(self, why: str, instruction: str, stats: InferenceStats | None = None) -> None:
        """Publish a chunk without steps, and the reason."""
        now = self._node.get_clock().now().nanoseconds
        self._publish(
            hold(self._manifest.action.control_period),
            now,
            instruction,
            stats or self.stats_message(),
            False,
            why,
        )
        self.moving = False

    def send_kept_patches(self, prediction: Prediction, stamp: int) -> None:
        """Publish per camera one pixel per patch, 255 where it was kept, if anybody looks.

        They are turned back to the camera's upright view; they cover its centre crop.
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

        :param age: Of the observation when inference started [ns].
        :param decode: Seconds spent on decoding images, part of preprocessing.
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
        """Remove the publishers."""
        for publisher in (self._publisher, *self._kept_publishers):
            self._node.destroy_lifecycle_publisher(publisher)

    def _publish(
        self,
        chunk: Chunk,
        stamp: int,
        instruction: str,
        stats: InferenceStats,
        clamped: bool,
        why: str,
    ) -> bool:
        # An inactive lifecycle publisher drops messages without a word; they must not be counted.
        if not self._publisher.is_activated:
            return False
        try:
            message = chunk_to_message(
                chunk,
                stamp_ns=stamp,
                frame_id=self._values.base_frame,
                child_frame_id=self._values.ee_frame,
                reference=REFERENCES[self._manifest.action.reference],
                valid_until_ns=stamp + nanoseconds(self._values.start_window),
                sequence=self.sequence,
                session_id=self.session_id,
                instruction=instruction,
                clamped=clamped,
                reason=why,
                stats=stats,
            )
            self._publisher.publish(message)
            self.sequence += 1
            return True
        except Exception as error:
            self._on_failure('chunk' if len(chunk) else 'hold', error)
        try:
            self._publisher.publish(self._wordless_hold())
            self.sequence += 1
        except Exception as error:
            self._on_failure('hold', error)
        return False

    def _wordless_hold(self) -> ActionChunk:
        message = ActionChunk(
            schema_version=ActionChunk.SCHEMA_VERSION,
            reference=REFERENCES[self._manifest.action.reference],
            period=duration_message(nanoseconds(self._manifest.action.control_period)),
            sequence=self.sequence,
            session_id=self.session_id,
        )
        message.header.stamp = message.valid_until = self._node.get_clock().now().to_msg()
        return message
