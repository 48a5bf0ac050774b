"""Who publishes on a node's topics, and what to do where nobody does, as the ROS graph shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rclpy.node import Node
from rclpy.topic_endpoint_info import TopicEndpointInfo

from lightvla_ros.errors import LIMIT
from lightvla_ros.nodes.launch_arguments import remapping

MOST_TOPICS = 5  # that are suggested instead of a topic without a publisher
COMPRESSED = '/compressed'
# Poses that the arm is sent to. A node that took one for the measured pose would follow itself.
COMMANDS = ('/target_pose', '/pose_target_cmds')
# type -> value of the parameter image_transport
TRANSPORTS = {'sensor_msgs/msg/Image': 'raw', 'sensor_msgs/msg/CompressedImage': 'compressed'}


@dataclass(frozen=True)
class Topic:
    """A topic of the node.

    :param source: Its name in reasons: ``wrist``.
    :param relative: Its name before remapping, without a transport's suffix: ``wrist/image``.
    :param name: The resolved name: ``/left/wrist/image/compressed``.
    :param kind: The type: ``sensor_msgs/msg/CompressedImage``.
    """

    source: str
    relative: str
    name: str
    kind: str

    @classmethod
    def of(cls, node: Node, source: str, relative: str, name: str, message: type) -> Topic:
        """Describe a topic with this message class; ``name`` may be relative or resolved."""
        package = message.__module__.partition('.')[0]
        return cls(
            source, relative, node.resolve_topic_name(name), f'{package}/msg/{message.__name__}'
        )


class TopicGraph:
    """The graph around a node's inputs.

    :param inputs: The node's own inputs, which no other input should be remapped to.
    """

    def __init__(self, node: Node, inputs: Sequence[Topic]) -> None:
        self._node = node
        self._inputs = tuple(inputs)

    def publishers(self, topic: Topic) -> tuple[list[TopicEndpointInfo], list[TopicEndpointInfo]]:
        """Return the publishers of a topic: those with its type, and those with another."""
        found = self._node.get_publishers_info_by_topic(topic.name)
        right = [info for info in found if info.topic_type == topic.kind]
        return right, [info for info in found if info.topic_type != topic.kind]

    def advice(self, topic: Topic) -> str:
        """Return what to do about an input without messages, in one line."""
        right, wrong = self.publishers(topic)
        where = f'{topic.source}: {topic.name} ({topic.kind})'
        if right:
            return f'{where}: {names_of(right)} publishes there but no good message has come'
        if wrong:
            kind = wrong[0].topic_type
            where = f'{where}: {names_of(wrong)} publishes {kind} there'
            if topic.kind in TRANSPORTS and kind in TRANSPORTS:
                return f'{where}: {_other_transport(topic, kind)}'
        else:
            where = f'{where}: no node publishes there'
        others = self._others(topic.kind)
        transport = ''
        if not others and topic.kind in TRANSPORTS:
            kind = next(kind for kind in TRANSPORTS if kind != topic.kind)
            others, transport = self._others(kind), f'image_transport:={TRANSPORTS[kind]} '
        if not others:
            elsewhere = remapping(topic.relative, 'ITS_TOPIC')
            return f'{where}, nor this type elsewhere: start its driver or pass {elsewhere}'
        there = ', '.join(others[:MOST_TOPICS])
        one = others[0] if len(others) == 1 else 'ONE_OF_THESE'  # only the user knows which one
        return f'{where}; there is {there}: pass {transport}{remapping(topic.relative, one)}'

    def _others(self, kind: str) -> list[str]:
        """Return topics of a type that another node publishes and no input uses.

        Topics of compressed images are returned without the suffix, which the node appends.
        """
        own = f'{self._node.get_fully_qualified_name()}/'
        taken = {each.name for each in self._inputs}
        names = [
            name
            for name, kinds in self._node.get_topic_names_and_types()
            if kind in kinds
            and name not in taken
            and not name.startswith(own)
            and not name.endswith(COMMANDS)
            and self._node.count_publishers(name)
        ]
        if TRANSPORTS.get(kind) == 'compressed':
            names = [name.removesuffix(COMPRESSED) for name in names if name.endswith(COMPRESSED)]
        return names


def _other_transport(topic: Topic, kind: str) -> str:
    """Return the arguments that subscribe to a topic's images by the transport it really uses."""
    transport = f'image_transport:={TRANSPORTS[kind]}'
    if TRANSPORTS[kind] == 'raw':
        return f'pass {transport} {remapping(topic.relative, topic.name)}'
    if topic.name.endswith(COMPRESSED):
        raw = topic.name.removesuffix(COMPRESSED)
        return f'pass {transport} {remapping(topic.relative, raw)}'
    return f'pass {transport} and let its driver publish on {topic.name}{COMPRESSED}'


def names_of(publishers: Sequence[TopicEndpointInfo]) -> str:
    """Return the names of the publishers' nodes, cut to the length that a log line allows."""
    found = sorted(
        # an endpoint may be discovered before its node's name; a later check finds the name
        'a node without a name'
        if p.node_name == '_NODE_NAME_UNKNOWN_'
        else f'{p.node_namespace.rstrip("/")}/{p.node_name}'
        for p in publishers
    )
    return ' and '.join(found)[:LIMIT]
