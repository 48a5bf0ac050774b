"""The LIBERO bridge and the nodes that answer it, each in its own process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from lightvla_ros.errors import LightVLAError
from lightvla_ros.files import resource
from lightvla_ros.nodes.demo.conductor import Conductor

DOMAINS = 100
# The executor's parameters by the bridge's controller. Servo cuts what is faster than its scale.
EXECUTORS: dict[str, dict[str, object]] = {
    'crisp': {'controller': 'crisp'},
    'servo': {'controller': 'servo_twist', 'max_speed': 0.4, 'max_angular_speed': 0.8},
}
PATIENCE = ((signal.SIGINT, 15.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0))


def isolate() -> None:
    """Keep this run's topics to this machine and this run, unless the user chose otherwise."""
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % DOMAINS))


class NodeGroup:
    """Starts and ends the nodes. It starts ROS in this process, so call :meth:`close` at the end.

    :param logs: Folder of the nodes' logs.
    :param on_spin: Called while waiting, at least every 50 ms; an exception from it ends the wait.
    """

    def __init__(self, logs: Path, on_spin: Callable[[], None] = lambda: None) -> None:
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        self._logs = logs
        self._on_spin = on_spin
        self._executor = SingleThreadedExecutor()
        self._conductor: Conductor | None = None
        self._children: list[NodeProcess] = []

    def new_conductor(self) -> Conductor:
        """Return a new conductor; the previous one is destroyed."""
        if self._conductor is not None:
            self._executor.remove_node(self._conductor)
            self._conductor.destroy_node()
        self._conductor = Conductor(self._wait)
        self._executor.add_node(self._conductor)
        return self._conductor

    def start(
        self,
        bridge: dict[str, object],
        name: str,
        parameters: dict[str, object],
        executor: bool = True,
    ) -> None:
        """Start the bridge, the node that answers it, and the executor if the bridge needs one.

        :param bridge: The bridge's parameters; each episode is started by the conductor. With a
            ``controller`` other than ``osc``, a chunk executor commands it.
        :param name: Module of the answering node: ``policy_node`` or ``replay_node``.
        :param parameters: The answering node's parameters.
        :param executor: Whether to start the executor; False if the caller runs it.
        """
        config = resource('config/libero.param.yaml')
        controller = bridge.get('controller', 'osc')
        started: list[tuple[str, dict[str, object], Path | None]] = [
            ('libero_bridge_node', {'autostart': False, **bridge}, None),
            (name, parameters, config if name == 'policy_node' else None),
        ]
        if executor and controller != 'osc':
            started.append(('chunk_executor_node', EXECUTORS[controller], config))
        self._conductor.uses_executor = controller != 'osc'
        self._children = [
            NodeProcess(f'lightvla_ros.nodes.{module}', self._logs / f'{module}.log', values, file)
            for module, values, file in started
        ]

    @property
    def processes(self) -> dict[str, int]:
        """Process id of each node that was started, by the name of its module."""
        return {child.name: child.pid for child in self._children}

    def stop(self) -> None:
        """End the nodes; others can be started afterwards."""
        for child in self._children:
            child.stop()
        self._children = []

    def close(self) -> None:
        """End the nodes and ROS."""
        self.stop()
        self._executor.shutdown()
        if self._conductor is not None:
            self._conductor.destroy_node()
        rclpy.try_shutdown()

    def _wait(self, condition: Callable[[], bool], timeout: float, what: str) -> None:
        """Spin until a condition holds.

        :raises ChildError: When a node died.
        :raises TimeoutError: When the condition did not hold within ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        while not condition():
            self._executor.spin_once(timeout_sec=0.05)
            self._on_spin()
            for child in self._children:
                child.check()
            if time.monotonic() > deadline:
                raise TimeoutError(f'waited {timeout:g} s for {what}')


class ChildError(LightVLAError):
    """A child process ended unexpectedly; the message holds the end of its log."""


class NodeProcess:
    """One of the package's nodes in its own process, with its own log.

    :param module: The node's module, such as ``lightvla_ros.nodes.policy_node``.
    :param parameters: ROS parameters by name.
    :param params_file: A YAML file of parameters, read first.
    :param log: Where stdout and stderr go.
    """

    def __init__(
        self,
        module: str,
        log: Path,
        parameters: dict[str, object],
        params_file: Path | None = None,
    ) -> None:
        command = [sys.executable, '-m', module, '--ros-args']
        if params_file is not None:
            command += ['--params-file', str(params_file)]
        for name, value in parameters.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            command += ['-p', f'{name}:={text}']
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        with log.open('w') as file:
            # A session of its own: Ctrl-C reaches only the parent, which ends its children once.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ,
            )
        self._module = module
        self.name = module.rpartition('.')[2]
        self.pid = self._process.pid

    def check(self) -> None:
        """Check that the process still runs.

        :raises ChildError: When it does not.
        """
        code = self._process.poll()
        if code is not None:
            tail = '\n'.join(self._log.read_text().splitlines()[-15:])
            raise ChildError(f'{self._module} ended with {code}; {self._log} ends with:\n{tail}')

    def stop(self) -> int:
        """End the process: SIGINT, then SIGTERM, then SIGKILL. Return its exit code."""
        for number, seconds in PATIENCE:
            if self._process.poll() is not None:
                break
            self._process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
        return self._process.wait()
