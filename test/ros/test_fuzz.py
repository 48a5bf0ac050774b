"""A live policy node under malformed and random messages on every input, from a fixed seed.

Where an input holds only bad messages there is a hold that names it, and no motion; afterwards good
input moves the robot again, the node's memory is what it was, and it ends in order. More messages:
``LIGHTVLA_FUZZ=6000 pytest test/ros/test_fuzz.py``.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from bad_messages import CAMERAS, INSTRUCTION, STATES, Messages, message_types, topic
from lightvla_ros.msg import ActionChunk, VlaStatus
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile

COUNT = int(os.environ.get('LIGHTVLA_FUZZ', '500'))  # random messages for each transport
SENSORS = (*CAMERAS, *STATES)
PERIOD = 0.05
GROWTH = 60  # MiB of memory that all random messages together may leave behind


class Robot(Node):
    """Publishes good messages at 20 Hz, or bad ones where told, and watches the node."""

    def __init__(self, messages):
        super().__init__('fuzzer')
        self.messages = messages
        self.bad = set()  # inputs that get only bad messages
        self.feeding = set(SENSORS)
        self.chunks, self.statuses = [], []
        self.publishers_ = {
            source: self.create_publisher(kind, topic(source, messages.compressed), 10)
            for source, kind in message_types(messages.compressed).items()
        }
        self.create_subscription(ActionChunk, 'lightvla/action_chunk', self.chunks.append, 50)
        latched = QoSProfile(depth=50, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.create_subscription(VlaStatus, 'lightvla/status', self.statuses.append, latched)
        self._closing = threading.Event()
        self._threads = [threading.Thread(target=each) for each in (self._spin, self._feed)]
        for thread in self._threads:
            thread.start()

    def send(self, source, message):
        self.publishers_[source].publish(message)

    def matched(self):
        return self.statuses and all(p.get_subscription_count() for p in self.publishers_.values())

    def state(self):
        return (self.statuses[-1].state, self.statuses[-1].reason) if self.statuses else None

    def until(self, condition, what, timeout=15.0):
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f'waited {timeout} s for {what}; {self.state()}'
            time.sleep(0.01)

    def moves(self):
        """Whether the newest chunk has steps."""
        return bool(self.chunks and self.chunks[-1].steps)

    def held_for(self, source):
        """Whether a hold has named this input."""
        return any(not chunk.steps and source in chunk.reason for chunk in self.chunks)

    def until_it_works(self):
        """Wait until good input alone moves the robot."""
        self.bad, self.feeding = set(), set(SENSORS)
        time.sleep(4 * PERIOD)  # longer than a chunk of before is under way
        self.chunks.clear()
        self.send('instruction', self.messages.good('instruction'))
        self.until(self.moves, 'motion on good input')

    def close(self):
        self._closing.set()
        for thread in self._threads:
            thread.join()
        self.destroy_node()

    def _spin(self):
        executor = SingleThreadedExecutor()
        executor.add_node(self)
        while not self._closing.is_set():
            executor.spin_once(timeout_sec=0.1)
        executor.shutdown()

    def _feed(self):
        while not self._closing.wait(PERIOD):
            for source in SENSORS:
                if source in self.bad:
                    self.send(source, self.messages.bad(source))
                elif source in self.feeding:
                    self.send(source, self.messages.good(source))


@pytest.fixture(params=['raw', 'compressed'])
def fuzzed(request, bundled_policy, tmp_path):
    """A robot and the process of a policy node that has begun to move it."""
    robot = Robot(Messages(7, request.param == 'compressed'))
    command = [sys.executable, '-m', 'lightvla_ros.nodes.policy_node', '--ros-args']
    for parameter in (f'policy:={bundled_policy}', f'image_transport:={request.param}'):
        command += ['-p', parameter]
    log = tmp_path / 'log'
    with log.open('w') as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        robot.until(robot.matched, 'the node', 60.0)
        robot.until_it_works()
        yield robot, process
        assert process.poll() is None, f'the node ended: {log.read_text()[-2000:]}'
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 0
        assert 'Traceback' not in log.read_text()
    finally:
        process.kill()
        process.wait()
        robot.close()


def test_bad_input_holds_and_random_input_passes(fuzzed):
    robot, process = fuzzed
    for source in SENSORS:
        robot.chunks.clear()
        robot.bad = {source}
        robot.until(partial(robot.held_for, source), f'a hold that names {source}', 5.0)
        robot.until(lambda: robot.state()[0] == VlaStatus.HOLDING, 'the state HOLDING')
        robot.chunks.clear()
        time.sleep(0.6)  # longer than a chunk, and than max_silence
        assert not [chunk for chunk in robot.chunks if chunk.steps], f'motion on a bad {source}'
        assert source in robot.state()[1]
        robot.until_it_works()
    for _ in range(30):
        robot.send('instruction', robot.messages.bad('instruction'))
        time.sleep(0.01)
    assert {chunk.instruction for chunk in robot.chunks if chunk.steps} <= {INSTRUCTION}

    def memory():
        lines = Path(f'/proc/{process.pid}/status').read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith('VmRSS'))

    used = []
    for _ in range(2):
        robot.feeding = set(robot.messages.random.sample(SENSORS, 2))
        for _ in range(COUNT // 2):
            source = robot.messages.random.choice((*SENSORS, 'instruction'))
            robot.send(source, robot.messages.wild(source))
            time.sleep(0.004)
        robot.until_it_works()
        used.append(memory())
    assert used[-1] - used[0] < GROWTH
    robot.until(lambda: robot.state() == (VlaStatus.RUNNING, ''), 'the state RUNNING')
