"""Runs a node until a signal ends it, and closes it in order."""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Callable

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from lightvla_ros.errors import one_line
from lightvla_ros.nodes.parameters import ParameterError

# The signals with which terminals, ssh, init systems, ulimit and other programs end a process.
# SIGKILL cannot be caught: then `valid_until` of the last chunk stops the robot.
ENDING_SIGNALS = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGXCPU,
)


def run_node(factory: Callable[[threading.Event], Node], args: list[str] | None = None) -> int:
    """Build a node, spin it and close it; return the process's exit code.

    rclpy's own signal handlers shut the context down first, and then nothing can be published any
    more; but a policy must still send its last hold. So the handlers here only set an event, which
    the factory receives: long work (loading, simulating) should check it, and a node sets it to end
    the process. If a node has ``shut_down()``, it is called while the node can still publish.

    :returns: 0 after one of :data:`ENDING_SIGNALS` or when the node set the event, 1 when it could
        not be built.
    """
    stop = threading.Event()
    on_ending_signals(stop.set)
    executor = node = None
    try:
        try:
            rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
            node = factory(stop)
        except (ParameterError, rclpy_implementation.RCLError) as error:
            # RCLError: for example, security is on and the keys of the enclave are missing
            rclpy.logging.get_logger('lightvla_ros').fatal(' '.join(str(error).split()))
            return 1
        freeze_garbage()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        spin(executor, node, stop)
        return 0
    finally:
        if executor is not None:
            getattr(node, 'shut_down', lambda: None)()
            executor.remove_node(node)
            node.destroy_node()
            executor.shutdown()
        rclpy.try_shutdown()


def freeze_garbage() -> None:
    """Let the garbage collector ignore everything that exists by now; once in a node's process.

    Most of it lives as long as the node, and to search it again and again takes milliseconds, in
    which the node does not react.
    """
    gc.collect()
    gc.freeze()


def on_ending_signals(callback: Callable[[], None]) -> None:
    """Call a function on each of :data:`ENDING_SIGNALS`, instead of ending at once."""
    for number in ENDING_SIGNALS:
        # nohup ignores SIGHUP for its child, which is then meant to outlive the terminal
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: callback())


def spin(executor: SingleThreadedExecutor, node: Node, stop: threading.Event) -> None:
    """Spin until ``stop`` is set, whatever a callback raises.

    rclpy's own ``spin`` ends when an exception leaves a callback. One bad request must not stop a
    robot's node.
    """
    while not stop.is_set() and executor.context.ok():
        try:
            executor.spin_once(timeout_sec=0.1)
        except Exception as error:
            said = one_line(repr(error))
            node.get_logger().error(f'callback failed: {said}', throttle_duration_sec=1.0)
