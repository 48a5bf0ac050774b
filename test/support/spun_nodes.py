"""Nodes that threads spin, while the test waits for what they do."""

import threading
import time
from contextlib import contextmanager

from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from lightvla_ros.nodes.spin import spin


class SpunNodes:
    """Base of the rigs. A subclass says in ``seen`` what a test that waits in vain has seen."""

    def spin(self, *nodes):
        """Spin each node in a thread of its own."""
        self._stop = threading.Event()
        self._threads = []
        for node in nodes:
            executor = SingleThreadedExecutor()
            executor.add_node(node)
            thread = threading.Thread(target=self._spin, args=(executor, node), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _spin(self, executor, node):
        spin(executor, node, self._stop)
        executor.remove_node(node)
        executor.shutdown()

    def until(self, condition, what='', timeout=15.0):
        """Wait for a condition; fail with what was seen otherwise."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f'waited {timeout} s for {what}; {self.seen()}'
            time.sleep(0.005)

    def stop_spinning(self):
        self._stop.set()
        for thread in self._threads:
            thread.join(5.0)


@contextmanager
def stranger(r, kind, topic, name='rosbag2_player'):
    """Another process' node, as far as the graph tells, that publishes on a topic; it is silent.

    In a context of its own, because one context refuses two types on one topic.
    """
    context = Context()
    context.init()
    node = Node(name, namespace=r.namespace, context=context)
    node.create_publisher(kind, topic, 1)
    try:
        yield
    finally:
        node.destroy_node()
        context.shutdown()
