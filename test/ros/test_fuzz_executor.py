"""A live chunk executor under malformed and random messages on every input, from a fixed seed.

Where an input holds only bad messages the commanded pose stays where it is; under any messages it
stays near the arm and in the box; afterwards good input moves the arm again, the node's memory is
what it was, and it ends in order. More messages:
``LIGHTVLA_FUZZ=20000 pytest test/ros/test_fuzz_executor.py``.
"""

import itertools
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from bad_executor_messages import ExecutorMessages
from executor_rig import executor_rig
from geometry_msgs.msg import PoseStamped
from lightvla_ros.msg import VlaStatus

from lightvla_ros.runtime.reasons import kind
from lightvla_ros.runtime.safety_limits import SafetyLimits

COUNT = int(
    os.environ.get('LIGHTVLA_FUZZ', '500')
)  # random messages, without poses; and again with poses
INPUTS = ('action_chunk', 'ee_pose', 'enable', 'stop')
CHUNK_PERIOD = 0.05
ROUND = 50  # random messages between two resets
LIMITS = SafetyLimits()
BEHIND = 0.02  # m that the arm moves while a command is under way
GROWTH = 20  # MiB of memory that all random messages together may leave behind


class Fuzzed:
    """The rig, its messages, and every commanded pose with the arm's place at that time."""

    def __init__(self, r):
        self.r, self.arm = r, r.arm
        self.messages = ExecutorMessages(7, r.arm)
        self.commands = []
        self.arm.create_subscription(PoseStamped, 'target_pose', self._on_command, 50)
        self.publishers = {
            'action_chunk': self.arm.chunk_publisher,
            'ee_pose': self.arm.pose_publisher,
            'enable': self.arm.enable_publisher,
            'stop': self.arm.stop_publisher,
        }
        self._sessions = itertools.count()
        self._chunk_sent = 0.0

    def _on_command(self, message):
        p, q = message.pose.position, message.pose.orientation
        pose = np.array([p.x, p.y, p.z, q.x, q.y, q.z, q.w])
        self.commands.append((pose, self.arm.pose.position.copy()))

    def send(self, source, message):
        self.publishers[source].publish(message)

    def send_good_chunk(self):
        """Send the next good chunk if it is due."""
        if time.monotonic() - self._chunk_sent >= CHUNK_PERIOD:
            self._chunk_sent = time.monotonic()
            self.send('action_chunk', self.messages.good('action_chunk'))

    def reset(self):
        """Reset the executor; the policy's next chunks are of another session."""
        self.r.until(lambda: self.r.reset().success, 'a reset')
        self.arm.session = str(next(self._sessions))

    def works(self):
        """Reset, and drive the arm with good input alone."""
        self.arm.reporting = self.arm.enabling = True
        self.reset()
        place = self.arm.pose.position.copy()

        def moves():
            if self.arm.state[0] == VlaStatus.FAULT:  # on a busy machine, good poses come late too
                self.reset()
            self.send_good_chunk()
            running = self.arm.state[0] == VlaStatus.RUNNING
            return running and np.abs(self.arm.pose.position - place).max() > 0.003

        self.r.until(moves, 'motion on good input')

    def starve(self, source, seconds):
        """Send only bad messages on one input, and good ones on the others."""
        self.arm.reporting = source != 'ee_pose'
        self.arm.enabling = source != 'enable'
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if source != 'action_chunk':
                self.send_good_chunk()
            self.send(source, self.messages.bad(source))
            time.sleep(0.01)

    def storm(self, sources):
        """Send random messages on these inputs, among good ones on all."""
        for number in range(COUNT):
            if number % ROUND == 0:
                # the first pose after a reset is believed, so it must be a good one
                time.sleep(0.05)
                self.reset()
                time.sleep(0.05)
            self.send_good_chunk()
            source = self.messages.random.choice(sources)
            self.send(source, self.messages.wild(source))
            time.sleep(0.003)


def memory(process):
    lines = Path(f'/proc/{process.pid}/status').read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith('VmRSS'))


@pytest.fixture
def fuzzed(capfd):
    with executor_rig(process=True) as r:
        fuzzed = Fuzzed(r)
        r.ready()
        fuzzed.works()
        yield fuzzed
        assert r.process.poll() is None, 'the executor ended'
        r.process.send_signal(signal.SIGINT)
        assert r.process.wait(10) == 0
        said = capfd.readouterr()
        assert 'Traceback' not in said.out + said.err


@pytest.mark.parametrize('source', ['action_chunk', 'ee_pose', 'enable'])
def test_an_input_with_only_bad_messages_moves_nothing(fuzzed, source):
    fuzzed.starve(source, 1.5)  # longer than the chunk that is under way
    assert fuzzed.arm.state[0] in (VlaStatus.HOLDING, VlaStatus.FAULT)
    fuzzed.commands.clear()
    fuzzed.starve(source, max(1.0, COUNT / 1000))
    poses = np.array([pose for pose, _ in list(fuzzed.commands)])
    assert len(poses) > 20
    assert np.ptp(poses, axis=0).max() == 0, fuzzed.arm.state
    fuzzed.works()


def test_bad_messages_on_stop_neither_stop_nor_move(fuzzed):
    fuzzed.starve('stop', 1.0)
    assert 'operator_stop' not in {kind(status.reason) for status in fuzzed.arm.statuses}
    assert np.ptp([pose[1] for pose, _ in list(fuzzed.commands)]) > 0.003


def test_random_messages_keep_the_bounds_and_leave_nothing_behind(fuzzed):
    used = []
    # a random pose is believed if it is near the last one
    for sources, odd in (
        (('action_chunk', 'enable', 'stop'), 0.0),
        (INPUTS, LIMITS.state_jump_translation),
    ):
        fuzzed.commands.clear()
        fuzzed.storm(sources)
        commands = list(fuzzed.commands)
        commanded = np.array([pose for pose, _ in commands])
        places = np.array([place for _, place in commands])
        assert np.isfinite(commanded).all()
        assert np.allclose(np.linalg.norm(commanded[:, 3:], axis=1), 1)
        far = np.linalg.norm(commanded[:, :3] - places, axis=1).max()
        assert far < LIMITS.max_stretch_translation + odd + BEHIND
        assert (commanded[:, :3] > np.array(LIMITS.box_min) - 1e-6).all()
        assert (commanded[:, :3] < np.array(LIMITS.box_max) + 1e-6).all()
        assert np.ptp(commanded[:, :3], axis=0).max() > 0.003, 'nothing moved at all'
        fuzzed.works()
        used.append(memory(fuzzed.r.process))
    assert used[1] - used[0] < GROWTH
