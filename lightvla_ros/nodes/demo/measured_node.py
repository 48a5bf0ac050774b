"""A node in this process, to be measured, with another process that feeds it."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter

from lightvla_ros.nodes.demo.processes import isolate
from lightvla_ros.nodes.spin import freeze_garbage, spin


@contextmanager
def measured_node(
    kind: Callable[..., Any], parameters: dict[str, object], feed: Callable[[Any, Any], None]
) -> Iterator[tuple[Any, Any]]:
    """Run an active node and its feeder; yield the node and the feeder's count of messages.

    :param kind: The node's class.
    :param feed: Runs in the other process, with the count and an event that ends it.
    """
    isolate()
    # spawn: a forked child would share this process's DDS
    context = multiprocessing.get_context('spawn')
    sent, stop_feeding = context.Value('i', 0), context.Event()
    feeder = context.Process(target=feed, args=(sent, stop_feeding), daemon=True)
    rclpy.init()
    node = kind(parameter_overrides=[Parameter(k, value=v) for k, v in parameters.items()])
    try:
        with spinning(node):
            freeze_garbage()  # as in a process of its own
            feeder.start()
            try:
                yield node, sent
            finally:
                stop_feeding.set()
                feeder.join(5.0)
    finally:
        rclpy.shutdown()


@contextmanager
def spinning(node: Any) -> Iterator[None]:
    """Start a node and spin it in a thread of its own; shut it down and destroy it afterwards."""
    node.autostart()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    stop = threading.Event()
    spinner = threading.Thread(target=spin, args=(executor, node, stop))
    spinner.start()
    try:
        yield
    finally:
        stop.set()
        spinner.join()
        executor.remove_node(node)
        executor.shutdown()
        node.shut_down()
        node.destroy_node()
