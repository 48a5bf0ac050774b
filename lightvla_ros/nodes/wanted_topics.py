"""The topics that a policy needs: cameras, state and instruction."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import String

from lightvla_ros.contract import Manifest
from lightvla_ros.nodes.policy_parameters import takes_pose
from lightvla_ros.nodes.qos import ORDER_QOS, SENSOR_QOS
from lightvla_ros.nodes.topic_graph import Topic


@dataclass(frozen=True)
class WantedTopic:
    """A topic to subscribe to.

    :param message: The class of its messages.
    """

    topic: Topic
    message: type
    qos: QoSProfile


def camera_topics(
    node: Node, manifest: Manifest, values: SimpleNamespace
) -> dict[str, WantedTopic]:
    """Return the topic of each camera, by name, in the policy's order.

    :param values: The policy node's parameters.
    """
    raw = values.image_transport == 'raw'
    message = Image if raw else CompressedImage
    found = {}
    for camera in manifest.cameras:
        relative = f'{camera.name}/image'
        # Resolve first, then add the suffix, so that a remapped camera keeps its transport.
        name = node.resolve_topic_name(relative) + ('' if raw else '/compressed')
        found[camera.name] = WantedTopic(
            Topic.of(node, camera.name, relative, name, message), message, SENSOR_QOS
        )
    return found


def state_topics(node: Node, manifest: Manifest) -> dict[str, WantedTopic]:
    """Return the topics of the robot's state that a policy takes, by name."""
    messages: dict[str, type] = {}
    if takes_pose(manifest):
        messages['ee_pose'] = PoseStamped
    if manifest.proprio and 'gripper_qpos' in manifest.proprio.layout:
        messages['gripper_state'] = JointState
    return {
        name: WantedTopic(Topic.of(node, name, name, name, message), message, SENSOR_QOS)
        for name, message in messages.items()
    }


def instruction_topic(node: Node) -> WantedTopic:
    """Return the topic of the instruction."""
    name = 'instruction'
    return WantedTopic(Topic.of(node, name, name, name, String), String, ORDER_QOS)
