"""The LIBERO bridge's publishers: the clock, observations, and the start and end of episodes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

from lightvla_ros.contract.libero import CAMERAS
from lightvla_ros.nodes.conversions import (
    gripper_to_message,
    image_to_message,
    pose_to_message,
    time_message,
)
from lightvla_ros.nodes.qos import LATCHED
from lightvla_ros.policy.state import RobotState


class BridgeOutput:
    """The bridge's publishers. Stamps are nanoseconds of simulated time.

    :param base_frame: Frame of ``ee_pose``.
    """

    def __init__(self, node: Node, base_frame: str) -> None:
        self._base_frame = base_frame
        self._clock = node.create_publisher(Clock, '/clock', 10)
        self._images = {name: node.create_publisher(Image, f'{name}/image', 1) for name in CAMERAS}
        self._pose = node.create_publisher(PoseStamped, 'ee_pose', 1)
        self._gripper = node.create_publisher(JointState, 'gripper_state', 1)
        self._episode = node.create_publisher(String, '~/episode', LATCHED)
        self._result = node.create_publisher(String, '~/result', LATCHED)

    def clock(self, now: int) -> None:
        """Publish the time."""
        self._clock.publish(Clock(clock=time_message(now)))

    def state(self, state: RobotState, stamp: int) -> None:
        """Publish position, quaternion and fingers."""
        self._pose.publish(pose_to_message(state, stamp, self._base_frame))
        self._gripper.publish(gripper_to_message(state, stamp))

    def observation(
        self,
        images: dict[str, np.ndarray],
        state: RobotState,
        stamp: int,
    ) -> None:
        """Publish the images and the state of one instant, all with one stamp.

        The state is published first: the images start an inference, which must not use the state
        of an earlier instant.

        :param images: Upright RGB uint8 [H, W, 3] by camera.
        :param state: Position, quaternion and fingers.
        """
        self.state(state, stamp)
        self.images(images, stamp)

    def images(self, images: dict[str, np.ndarray], stamp: int) -> None:
        """Publish the images of one instant: upright RGB uint8 [H, W, 3] by camera."""
        for name, image in images.items():
            self._images[name].publish(image_to_message(image, stamp, f'{name}_optical'))

    def episode(self, facts: dict[str, Any]) -> None:
        """Publish the start of an episode, as latched JSON."""
        self._episode.publish(String(data=json.dumps(facts)))

    def result(self, result: dict[str, Any]) -> None:
        """Publish the result of an episode, as latched JSON."""
        self._result.publish(String(data=json.dumps(result)))
