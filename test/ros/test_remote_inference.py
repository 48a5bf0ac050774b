"""The policy runs on another machine than the robot, and the network between them goes."""

import json
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from lightvla_ros.msg import VlaStatus
from two_machines import two_machines

ROBOT = Path(__file__).resolve().parents[1] / 'support/remote_robot.py'
POLICY = (sys.executable, '-m', 'lightvla_ros.nodes.policy_node', '--ros-args', '-r', '__ns:=/far')
RUNNING, HOLDING = VlaStatus.RUNNING, VlaStatus.HOLDING


class _Lines:
    """What a process prints, read by a thread."""

    def __init__(self, process):
        self.lines = []
        self._process = process
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        with self._process.stdout as lines:
            for line in lines:
                self.lines.append(line)

    def until(self, found, what, timeout=150.0):
        deadline = time.monotonic() + timeout
        while not any(map(found, list(self.lines))):
            assert time.monotonic() < deadline, f'waited for {what}: {self.lines[-5:]}'
            time.sleep(0.02)


def _heard(who, state, why=''):
    def found(line):
        return line.startswith('{') and json.loads(line)[who] == [state, why]

    return found


@pytest.fixture
def machines():
    with ExitStack() as stack:
        try:
            made = stack.enter_context(two_machines())
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f'no network namespaces here: {error}')
        yield made


def test_fault_the_network_goes_and_both_machines_hold_and_say_why(bundled_policy, machines):
    output = {'stdout': subprocess.PIPE, 'stderr': subprocess.STDOUT}
    quiet = {'stdout': subprocess.PIPE, 'stderr': subprocess.DEVNULL}
    policy = _Lines(machines.start('remote', *POLICY, '-p', f'policy:={bundled_policy}', **output))
    robot = _Lines(
        machines.start('robot', sys.executable, str(ROBOT), stdin=subprocess.PIPE, **quiet)
    )
    robot.until(_heard('executor', RUNNING), 'motion')
    policy.lines.clear()
    robot.lines.clear()
    machines.plug(False)
    robot.until(_heard('executor', HOLDING, 'no_target'), 'the hold of the executor')
    policy.until(lambda line: 'HOLDING' in line and '_stale:' in line, 'the hold of the policy')
    robot.lines.clear()
    machines.plug(True)
    robot.until(_heard('executor', RUNNING), 'motion again')
