"""The demo's child processes: started with a log each, and ended in order."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from lightvla_ros.errors import LightVLAError

PATIENCE = ((signal.SIGINT, 15.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0))


class ChildError(LightVLAError):
    """A child process ended by itself; the message holds the end of its log."""


class NodeProcess:
    """One of our nodes in a process of its own.

    :param module: Such as ``lightvla_ros.nodes.policy_node``.
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
            # A session of its own: Ctrl-C reaches the parent alone, which ends its children once.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ,
            )
        self._module = module

    def check(self) -> None:
        """See that it still runs.

        :raises ChildError: When it does not.
        """
        code = self._process.poll()
        if code is not None:
            tail = '\n'.join(self._log.read_text().splitlines()[-15:])
            raise ChildError(f'{self._module} ended with {code}; {self._log} ends with:\n{tail}')

    def stop(self) -> int:
        """End it: SIGINT, then SIGTERM, then SIGKILL. Returns its exit code."""
        for number, seconds in PATIENCE:
            if self._process.poll() is not None:
                break
            self._process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
        return self._process.wait()
