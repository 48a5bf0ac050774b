"""Running a node until SIGINT or SIGTERM, and ending it in order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from lightvla_ros.nodes.parameters import ParameterError
from lightvla_ros.one_line import one_line


def run_node(factory: Callable[[threading.Event], Node], args: list[str] | None = None) -> int:
    """Build a node, spin it and close it; return the process's exit code.

    rclpy's own signal handlers shut the context down first, and then nothing can be published any
    more; a policy has to send its hold last. So the handlers here only set an event, which the
    factory is given: whatever takes long (loading, simulating) should look at it. A node may have
    ``shut_down()``; it is called while the node can still publish.

    :returns: 0 after SIGINT or SIGTERM, 1 when the node could not be built.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    executor = SingleThreadedExecutor()
    node = None
    try:
        try:
            node = factory(stop)
        except ParameterError as error:
            rclpy.logging.get_logger('lightvla_ros').fatal(str(error))
            return 1
        executor.add_node(node)
        spin(executor, node, stop)
        return 0
    finally:
        if node is not None:
            getattr(node, 'shut_down', lambda: None)()
            executor.remove_node(node)
            node.destroy_node()
        executor.shutdown()
        rclpy.try_shutdown()


def spin(executor: SingleThreadedExecutor, node: Node, stop: threading.Event) -> None:
    """Spin until ``stop`` is set, whatever a callback raises.

    An exception that leaves a callback ends rclpy's ``spin``, and on Jazzy an invalid lifecycle
    request from anybody does (rclpy#1209). One bad request must not stop a robot's node.
    """
    while not stop.is_set() and executor.context.ok():
        try:
            executor.spin_once(timeout_sec=0.1)
        except Exception as error:
            said = one_line(repr(error))
            node.get_logger().error(f'callback failed: {said}', throttle_duration_sec=1.0)
