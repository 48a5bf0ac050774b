"""Watches the publishers of a node's topics: too many, none, or one of the wrong type.

A message does not say which node sent it: frames of a camera and of a bag that is replayed at the
same time mix unnoticed. No event fires for a publisher of another type. The ROS graph shows both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from lightvla_ros.nodes.topic_graph import Topic, TopicGraph, names_of
from lightvla_ros.runtime.reasons import reason

PERIOD = 0.1  # s; counting the publishers of 8 topics takes 0.14 ms, their names 0.9 ms
NAMES_EVERY = 10  # periods, unless the numbers of publishers change


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
        self._graph = TopicGraph(node, inputs)
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
        return '; '.join(self._graph.advice(topic) for topic in wanted)

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
            right, wrong = self._graph.publishers(topic)
            if len(right) > 1 and (topic in self._outputs or not self._several_allowed()):
                return reason('two_publishers', topic.source, names_of(right))
            if wrong and not right:
                return reason('wrong_type', topic.source, f'{wrong[0].topic_type} on {topic.name}')
        return ''

    def _explanation(self, fault: str) -> str:
        code, _, source = fault.partition(' ')[0].partition(':')
        topic = next(t for t in (*self._outputs, *self._inputs) if t.source == source)
        if code == 'wrong_type':
            return self._graph.advice(topic)
        right, _ = self._graph.publishers(topic)
        line = f'{len(right)} publishers on {topic.name}: {names_of(right)}; this node holds still'
        if topic in self._outputs:
            cure = 'Give a second robot another namespace'
        else:
            cure = 'If this is intended, set allow_several_publishers'
        return f'{line} until one is left (a killed one stays listed for up to 20 s). {cure}'
