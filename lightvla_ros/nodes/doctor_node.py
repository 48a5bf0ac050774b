"""Listens to a policy's inputs for some seconds, for `lightvla doctor --live`; sends nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from geometry_msgs.msg import PoseStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import String

from lightvla_ros.contract import Manifest
from lightvla_ros.doctor.streams import Arrival
from lightvla_ros.errors import ImageError
from lightvla_ros.nodes.conversions import (
    MessageError,
    gripper_from_message,
    pose_from_message,
    stamp_ns,
)
from lightvla_ros.nodes.picture_reader import PictureReader
from lightvla_ros.nodes.policy_inputs import LATE_CLOCK
from lightvla_ros.nodes.policy_parameters import POLICY_PARAMETERS
from lightvla_ros.nodes.qos import subscribe
from lightvla_ros.nodes.wanted_topics import (
    WantedTopic,
    camera_topics,
    instruction_topic,
    state_topics,
)

DISCOVERY = 3.0  # s for which publishers are waited for
QUEUE = 50  # messages: the doctor counts them all, where the node takes the newest
KEPT_EVERY = 500_000_000  # ns between two pictures that are kept
MOST_KEPT = 12  # pictures of each camera


@dataclass
class Heard:
    """What came on a topic.

    :ivar contents: Pictures, at most :data:`MOST_KEPT`, or states, or instructions.
    :ivar faults: How often messages could not be used, by the reason's code and text.
    """

    wanted: WantedTopic
    subscription: Subscription | None = None
    arrivals: list[Arrival] = field(default_factory=list)
    contents: list[Any] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)
    kept_at: int = 0

    def blame(self, text: str) -> None:
        """Count a message that cannot be used."""
        self.faults[text] = self.faults.get(text, 0) + 1


class DoctorNode(Node):
    """A node with the policy node's name, parameters and topics, which only listens.

    It has no services and no log topic, so it may run beside the policy node.

    :param arguments: The ROS arguments with which rclpy was started.
    """

    def __init__(self, manifest: Manifest, arguments: Sequence[str] = (), **options: Any) -> None:
        # The name decides which section of a parameter file is read
        super().__init__(
            'lightvla',
            start_parameter_services=False,
            enable_rosout=False,
            parameter_overrides=[
                Parameter('start_type_description_service', value=False),
                *options.pop('parameter_overrides', []),
            ],
            **options,
        )
        self.manifest = manifest
        self.values = POLICY_PARAMETERS.declare(self, arguments=arguments)
        self.simulated = bool(self.get_parameter('use_sim_time').value)
        self.pictures = PictureReader(manifest.cameras, self.values)
        self.cameras = self._subscribe(camera_topics(self, manifest, self.values))
        self.states = self._subscribe(state_topics(self, manifest))
        self.instruction = self._subscribe({'instruction': instruction_topic(self)})['instruction']
        self._listening = False

    @property
    def heard(self) -> dict[str, Heard]:
        """All inputs by name."""
        return {**self.cameras, **self.states, 'instruction': self.instruction}

    def listen(self, seconds: float) -> None:
        """Wait for publishers, but not for long; then take what comes for some seconds."""
        executor = SingleThreadedExecutor(context=self.context)
        executor.add_node(self)
        needed = [each.wanted.topic.name for each in (self.cameras | self.states).values()]
        deadline = time.monotonic() + DISCOVERY
        while time.monotonic() < deadline and not all(map(self.count_publishers, needed)):
            executor.spin_once(timeout_sec=0.05)
        self._listening = True
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            executor.spin_once(timeout_sec=0.05)
        self._listening = False
        executor.remove_node(self)
        executor.shutdown()

    def _subscribe(self, topics: dict[str, WantedTopic]) -> dict[str, Heard]:
        found = {}
        for name, wanted in topics.items():
            heard = found[name] = Heard(wanted)
            qos = QoSProfile(
                depth=QUEUE, reliability=wanted.qos.reliability, durability=wanted.qos.durability
            )
            callback = partial(self._on_message, name, heard)
            heard.subscription = subscribe(self, wanted.message, wanted.topic.name, callback, qos)
        return found

    def _on_message(
        self,
        name: str,
        heard: Heard,
        message: Image | CompressedImage | PoseStamped | JointState | String,
    ) -> None:
        if not self._listening:
            return
        steady, clock = time.monotonic_ns(), self.get_clock().now().nanoseconds
        if isinstance(message, String):
            heard.contents.append(message.data)
            return
        stamp = stamp_ns(message.header.stamp)
        if self.simulated and clock < stamp <= clock + LATE_CLOCK:
            clock = stamp  # the message has overtaken the /clock of its time
        size = len(getattr(message, 'data', ()))
        heard.arrivals.append(Arrival(stamp, clock, steady, message.header.frame_id, size))
        try:
            if isinstance(message, PoseStamped):
                heard.contents.append(pose_from_message(message))
            elif isinstance(message, JointState):
                heard.contents.append(gripper_from_message(message, self.values.finger_joints))
            else:
                picture = self.pictures.take(name, message)
                if steady - heard.kept_at >= KEPT_EVERY and len(heard.contents) < MOST_KEPT:
                    heard.contents.append(picture)
                    heard.kept_at = steady
        except MessageError as error:
            heard.blame(str(error))
        except ImageError as error:
            heard.blame(f'{error.code}: {error}')
