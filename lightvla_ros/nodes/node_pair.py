"""The LIBERO bridge and the node that answers it, in processes of their own."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from lightvla_ros.files import resource
from lightvla_ros.nodes.conductor import Conductor
from lightvla_ros.nodes.processes import NodeProcess


class NodePair:
    """Starts and ends both nodes, and listens to them. Starts ROS in this process; close it.

    :param logs: Folder of the nodes' logs.
    :param on_spin: Called while waiting, at least every 50 ms; what it raises ends the wait.
    """

    def __init__(self, logs: Path, on_spin: Callable[[], None] = lambda: None) -> None:
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        self._logs = logs
        self._on_spin = on_spin
        self._executor = SingleThreadedExecutor()
        self._conductor: Conductor | None = None
        self._children: list[NodeProcess] = []

    def new_conductor(self) -> Conductor:
        """Return one that knows nothing yet; the one before is of no use any more."""
        if self._conductor is not None:
            self._executor.remove_node(self._conductor)
            self._conductor.destroy_node()
        self._conductor = Conductor(self._wait)
        self._executor.add_node(self._conductor)
        return self._conductor

    def start(self, bridge: dict[str, object], name: str, parameters: dict[str, object]) -> None:
        """Start the bridge and what answers it.

        :param bridge: The bridge's parameters; each episode is started by the conductor.
        :param name: Module of what answers: ``policy_node`` or ``replay_node``.
        :param parameters: Its parameters.
        """
        config = resource('config/libero.param.yaml') if name == 'policy_node' else None
        self._children = [
            NodeProcess(
                'lightvla_ros.nodes.libero_bridge_node',
                self._logs / 'bridge.log',
                {'autostart': False, **bridge},
            ),
            NodeProcess(
                f'lightvla_ros.nodes.{name}', self._logs / f'{name}.log', parameters, config
            ),
        ]

    def stop(self) -> None:
        """End both; others can be started."""
        for child in self._children:
            child.stop()
        self._children = []

    def close(self) -> None:
        """End everything, ROS too."""
        self.stop()
        self._executor.shutdown()
        if self._conductor is not None:
            self._conductor.destroy_node()
        rclpy.try_shutdown()

    def _wait(self, condition: Callable[[], bool], timeout: float, what: str) -> None:
        """Spin until a condition holds.

        :raises ChildError: When a node died.
        :raises TimeoutError: When it took longer than ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        while not condition():
            self._executor.spin_once(timeout_sec=0.05)
            self._on_spin()
            for child in self._children:
                child.check()
            if time.monotonic() > deadline:
                raise TimeoutError(f'waited {timeout:g} s for {what}')
