"""The last chunk as markers for RViz and Foxglove: poses in the base frame, coloured by time."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from geometry_msgs.msg import Point
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from lightvla_ros.contract import Manifest
from lightvla_ros.nodes.conversions import duration_message, nanoseconds, time_message
from lightvla_ros.nodes.policy_inputs import measured_state
from lightvla_ros.nodes.policy_outputs import SentChunk
from lightvla_ros.policy.poses import Pose, rotated
from lightvla_ros.runtime.expected_path import expected_path

NEEDLE = 0.03  # m; from the end effector along its own z axis, where the fingers point
COLOURS = np.array([[0.31, 0.49, 1.0], [1.0, 0.31, 0.85], [1.0, 0.85, 0.31]])  # over time
STAYS = 1.0  # s after the chunk's last step


class ChunkMarkers:
    """Publishes ``~/debug/chunk_markers`` while anybody subscribes.

    The line leads through the poses that the arm is expected to reach; a needle at each of them
    shows where the fingers point, and a ball where the hand is to be closed.

    :param values: The node's parameters.
    """

    def __init__(self, node: LifecycleNode, manifest: Manifest, values: SimpleNamespace) -> None:
        self._node = node
        self._frame = values.base_frame
        self._execution = manifest.action.execution
        self._publisher = node.create_lifecycle_publisher(
            MarkerArray, '~/debug/chunk_markers', QoSProfile(depth=1)
        )

    def on_sent(self, sent: SentChunk) -> None:
        """Publish a chunk's markers. Runs in the inference thread."""
        if not self._publisher.get_subscription_count():
            return
        state = measured_state(sent.job)
        if state.position is None or state.quaternion is None:
            return
        poses = expected_path(Pose(state.position, state.quaternion), sent.chunk, self._execution)
        tips = [
            pose.position + rotated(pose.quaternion, np.array([0, 0, NEEDLE])) for pose in poses
        ]
        colours = _colours(len(poses))
        ends = [end for pose, tip in zip(poses, tips, strict=True) for end in (pose.position, tip)]
        closed = [index + 1 for index, opening in enumerate(sent.chunk.gripper) if opening < 0.5]
        line = self._marker(0, Marker.LINE_STRIP, 0.004, [pose.position for pose in poses], colours)
        needles = self._marker(1, Marker.LINE_LIST, 0.002, ends, np.repeat(colours, 2, axis=0))
        balls = self._marker(
            2, Marker.SPHERE_LIST, 0.01, [poses[i].position for i in closed], colours[closed]
        )
        if not closed:
            balls.action = Marker.DELETE
        lasts = duration_message(nanoseconds(sent.chunk.period * len(sent.chunk) + STAYS))
        for marker in (line, needles, balls):
            marker.header.stamp = time_message(sent.job.stamp)
            marker.lifetime = lasts
        self._publisher.publish(MarkerArray(markers=[line, needles, balls]))

    def destroy(self) -> None:
        """Remove the publisher."""
        self._node.destroy_lifecycle_publisher(self._publisher)

    def _marker(
        self, number: int, kind: int, size: float, points: list[np.ndarray], colours: np.ndarray
    ) -> Marker:
        marker = Marker(ns='chunk', id=number, type=kind, action=Marker.ADD)
        marker.header.frame_id = self._frame
        marker.pose.orientation.w = 1.0
        marker.scale.x = marker.scale.y = marker.scale.z = size
        marker.points = [Point(x=x, y=y, z=z) for x, y, z in np.reshape(points, (-1, 3)).tolist()]
        marker.colors = [ColorRGBA(r=r, g=g, b=b, a=1.0) for r, g, b in colours.tolist()]
        return marker


def _colours(count: int) -> np.ndarray:
    """Return colours [count, 3] from the first pose to the last."""
    at = np.linspace(0, len(COLOURS) - 1, count)
    return np.stack([np.interp(at, np.arange(len(COLOURS)), part) for part in COLOURS.T], axis=1)
