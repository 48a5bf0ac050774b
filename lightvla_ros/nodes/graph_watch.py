"""Watches the publishers of a node's topics: too many, none, or one of the wrong type.

A message does not say which node sent it: frames of a camera and of a bag that is replayed at the
same time mix unnoticed. No event fires for a publisher of another type. The ROS graph shows both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.topic_endpoint_info import TopicEndpointInfo

from lightvla_ros.errors import LIMIT
from lightvla_ros.nodes.launch_arguments import remapping
from lightvla_ros.runtime.reasons import reason

PERIOD = 0.1  # s; counting the publishers of 8 topics takes 0.14 ms, their names 0.9 ms
NAMES_EVERY = 10  # periods, unless the numbers of publishers change
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


class GraphWatch:
    """Checks the graph ten times a second, and reports when it is wrong.

    :param inputs: Topics that must have one publisher each.
    :param outputs: Topics on which only this node may publish.
    :param several_allowed: Returns whether inputs may have more than one publisher.
    :param tell: Called with the reason for not moving, or an empty string, whenever it changes.
    """

    def __init__(
        self,
        node: Node,
        inputs: Sequence[Topic],
        outputs: Sequence[Topic],
        several_allowed: Callable[[], bool],
        tell: Callable[[str], None],
    ) -> None:
        self.fault = ''
        self._node = node
        self._inputs = tuple(inputs)
        self._outputs = tuple(outputs)
        self._several_allowed = several_allowed
        self._tell = tell
        self._counts: list[int] = []
        self._left = 0
        self._timer = node.create_timer(
            PERIOD, self._look, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    def destroy(self) -> None:
        """Stop watching."""
        self._node.destroy_timer(self._timer)

    def advice(self, sources: Sequence[str]) -> str:
        """Return one line that says what to do about inputs without messages."""
        wanted = [topic for topic in self._inputs if topic.source in sources]
        return '; '.join(self._advice(topic) for topic in wanted)

    def _look(self) -> None:
        topics = (*self._inputs, *self._outputs)
        counts = [self._node.count_publishers(topic.name) for topic in topics]
        self._left -= 1
        if counts == self._counts and self._left > 0:
            return
        self._counts, self._left = counts, NAMES_EVERY
        fault = self._judge()
        if fault == self.fault:
            return
        self.fault = fault
        if fault:
            self._node.get_logger().error(self._explanation(fault))
        else:
            self._node.get_logger().info('each topic has one publisher, of the right type')
        self._tell(fault)

    def _judge(self) -> str:
        for topic in (*self._outputs, *self._inputs):
            right, wrong = self._publishers(topic)
            if len(right) > 1 and (topic in self._outputs or not self._several_allowed()):
                return reason('two_publishers', topic.source, _names(right))
            if wrong and not right:
                return reason('wrong_type', topic.source, f'{wrong[0].topic_type} on {topic.name}')
        return ''

    def _explanation(self, fault: str) -> str:
        code, _, source = fault.partition(' ')[0].partition(':')
        topic = next(t for t in (*self._outputs, *self._inputs) if t.source == source)
        if code == 'wrong_type':
            return self._advice(topic)
        right, _ = self._publishers(topic)
        line = f'{len(right)} publishers on {topic.name}: {_names(right)}; this node holds still'
        if topic in self._outputs:
            cure = 'Give a second robot another namespace'
        else:
            cure = 'If this is intended, set allow_several_publishers'
        return f'{line} until one is left (a killed one stays listed for up to 20 s). {cure}'

    def _publishers(self, topic: Topic) -> tuple[list[TopicEndpointInfo], list[TopicEndpointInfo]]:
        """Return the publishers of a topic: those with its type, and those with another."""
        found = self._node.get_publishers_info_by_topic(topic.name)
        right = [info for info in found if info.topic_type == topic.kind]
        return right, [info for info in found if info.topic_type != topic.kind]

    def _advice(self, topic: Topic) -> str:
        right, wrong = self._publishers(topic)
        where = f'{topic.source}: {topic.name} ({topic.kind})'
        if right:
            return f'{where}: {_names(right)} publishes there but no good message has come'
        if wrong:
            kind = wrong[0].topic_type
            where = f'{where}: {_names(wrong)} publishes {kind} there'
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


def _names(publishers: Sequence[TopicEndpointInfo]) -> str:
    """Return the names of the publishers' nodes, cut to the length that a log line allows."""
    found = sorted(
        # an endpoint may be discovered before its node's name; a later check finds the name
        'a node without a name'
        if p.node_name == '_NODE_NAME_UNKNOWN_'
        else f'{p.node_namespace.rstrip("/")}/{p.node_name}'
        for p in publishers
    )
    return ' and '.join(found)[:LIMIT]
