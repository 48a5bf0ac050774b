"""Chunks in, commanded poses and gripper out: the parts of the executor together."""

from dataclasses import replace

import numpy as np
import pytest

from lightvla_ros.policy.actions import Chunk, hold
from lightvla_ros.policy.poses import Pose
from lightvla_ros.runtime.chunk_executor import ChunkExecutor
from lightvla_ros.runtime.chunk_timeline import ReceivedChunk
from lightvla_ros.runtime.reasons import kind
from lightvla_ros.runtime.safety_filter import Mode
from lightvla_ros.runtime.safety_limits import SafetyLimits

HOME = Pose(np.array([0.5, 0.0, 0.3]), np.array([1.0, 0.0, 0.0, 0.0]))
LIMITS = SafetyLimits(enable_timeout=0.0)
TICK = 0.01


def received(y, gripper=1.0, sequence=0, start=0, **changes):
    """A chunk of 8 steps in the direction of y."""
    steps = Chunk(
        translations=np.tile([0.0, y, 0.0], (8, 1)),
        rotations=np.tile([0.0, 0.0, 0.0, 1.0], (8, 1)),
        gripper=np.full(8, gripper),
        period=0.05,
    )
    fields = {
        'chunk': steps,
        'start': start,
        'valid_until': start + 200_000_000,
        'session': 'a',
        'sequence': sequence,
        'execution': 'spring',
    }
    return ReceivedChunk(**fields | changes)


class Robot:
    """An executor with an arm that is wherever it was sent a moment ago."""

    def __init__(self, execution='spring', limits=LIMITS):
        self.executor = ChunkExecutor(limits, execution)
        self.now, self.pose = 0.0, HOME
        self.grips = []
        self.executor.measure(self.now, self.pose)  # the first one is not believed alone

    @property
    def ros_now(self):
        return round(self.now * 1e9)

    def run(self, seconds, follow=True):
        """Tick, and return all commands."""
        commands = []
        for _ in range(round(seconds / TICK)):
            self.executor.measure(self.now, self.pose)
            tick = self.executor.tick(self.now, self.ros_now)
            commands.append(tick.command)
            if tick.gripper is not None:
                self.grips.append(tick.gripper)
            if follow and tick.command.pose is not None:
                self.pose = tick.command.pose
            self.now += TICK
        return commands


def test_nothing_is_sent_before_the_arm_was_seen():
    executor = ChunkExecutor(LIMITS, 'spring')
    assert executor.offer(received(0.01), 0) == ''
    tick = executor.tick(0.0, 0)
    assert tick.command.pose is None
    assert tick.command.mode is Mode.HOLD
    assert tick.gripper is None


def test_without_a_chunk_the_arm_stays():
    commands = Robot().run(1.0)
    assert {command.mode for command in commands} == {Mode.HOLD}
    assert {command.why for command in commands} == {'no_target'}
    assert all(np.array_equal(command.pose.position, HOME.position) for command in commands)


@pytest.mark.parametrize('execution', ['spring', 'displacement'])
def test_a_chunk_moves_the_arm_and_its_end_holds_it(execution):
    robot = Robot(execution)
    assert robot.executor.offer(received(0.005, execution=execution), 0) == ''
    moving = robot.run(0.4)
    assert moving[5].mode is Mode.MOVE
    assert 0.005 < robot.pose.position[1] < 0.045
    still = robot.run(0.5)
    assert still[-1].why == 'no_target'
    place = robot.pose.position.copy()
    robot.run(0.5)
    assert np.array_equal(robot.pose.position, place)


def test_the_arm_waits_for_the_hand_and_goes_on_with_the_steps_of_that_time():
    robot = Robot()
    robot.executor.offer(received(0.005, gripper=0.0), 0)
    robot.run(0.03)
    assert robot.grips == [False]
    robot.executor.hand(True, True, robot.ros_now)
    waiting = robot.run(0.5)
    assert {kind(command.why) for command in waiting} == {'hand_moves'}
    place = robot.pose.position.copy()
    now = robot.ros_now
    seen = received(0.02, sequence=1, start=now, observed=now - 10_000_000)
    assert kind(robot.executor.offer(seen, now)) == 'hand_moves'
    robot.executor.hand(False, False, now)
    seen = replace(seen, sequence=2)
    assert kind(robot.executor.offer(seen, now)) == 'hand_moves', 'it is still old'
    going = robot.run(0.1)
    assert going[-1].mode is Mode.MOVE
    assert robot.pose.position[1] > place[1]
    assert robot.grips == [False]  # one command for all eight steps


def waiting_robot():
    """A robot whose arm waits for its hand, in the middle of a chunk."""
    robot = Robot()
    robot.executor.offer(received(0.005, gripper=0.0), 0)
    robot.run(0.1)
    robot.executor.hand(True, True, robot.ros_now)
    robot.run(0.1)
    return robot


def test_a_chunk_of_another_session_holds_while_the_arm_waits_as_well():
    robot = waiting_robot()
    now = robot.ros_now
    other = received(0.005, sequence=9, session='b', start=now, observed=now)
    assert kind(robot.executor.offer(other, now)) == 'wrong_session'
    robot.executor.hand(False, False, now)
    assert {kind(command.why) for command in robot.run(0.1)} == {'wrong_session'}


def test_a_hold_that_comes_while_the_arm_waits_is_in_force_afterwards():
    robot = waiting_robot()
    pause = replace(received(0, sequence=1), chunk=hold(0.05), why='paused')
    assert robot.executor.offer(pause, robot.ros_now) == ''
    robot.executor.hand(False, False, robot.ros_now)
    assert {command.why for command in robot.run(0.1)} == {'paused'}


def test_after_a_clock_that_stepped_back_new_chunks_are_taken_at_once():
    robot = waiting_robot()
    robot.executor.hand(False, False, robot.ros_now)
    robot.executor.forget('clock_jump')
    seen = received(0.005, sequence=1, start=1, observed=1)  # long before the arm waited
    assert robot.executor.offer(seen, 1) == ''


def test_a_hand_that_moves_gets_no_other_command_and_the_arm_goes_on():
    robot = Robot()
    robot.executor.offer(received(0.005, gripper=0.0), 0)
    robot.run(0.03)
    robot.executor.hand(True, False, robot.ros_now)
    robot.executor.offer(received(0.005, sequence=1, start=robot.ros_now), robot.ros_now)
    going = robot.run(0.35)
    assert {command.mode for command in going} == {Mode.MOVE}
    assert robot.grips == [False]
    robot.executor.hand(False, False, robot.ros_now)
    robot.run(0.03)
    assert robot.grips == [False, True]


def test_a_hold_of_the_policy_stops_arm_and_gripper_at_once():
    robot = Robot()
    robot.executor.offer(received(0.005), 0)
    robot.run(0.1)
    robot.grips.clear()
    pause = replace(received(0, sequence=1), chunk=hold(0.05), why='paused')
    assert robot.executor.offer(pause, robot.ros_now) == ''
    commands = robot.run(0.3)
    assert {command.why for command in commands} == {'paused'}
    assert robot.grips == []


def test_a_chunk_of_another_session_holds():
    robot = Robot()
    robot.executor.offer(received(0.005), 0)
    robot.run(0.1)
    other = received(0.005, sequence=1, session='b', start=robot.ros_now)
    assert kind(robot.executor.offer(other, robot.ros_now)) == 'wrong_session'
    assert {kind(command.why) for command in robot.run(0.1)} == {'wrong_session'}


def test_an_arm_that_is_not_where_it_was_sent_stops_until_a_reset():
    robot = Robot()
    robot.executor.offer(received(0.005), 0)
    robot.run(0.1)
    robot.pose = Pose(robot.pose.position + [0, 0.09, 0], robot.pose.quaternion)
    stopped = robot.run(0.2, follow=False)
    assert stopped[-1].mode is Mode.STOP
    assert kind(stopped[-1].why) == 'deviation'
    again = received(0.005, sequence=1, start=robot.ros_now)
    robot.executor.offer(again, robot.ros_now)
    assert robot.run(0.1, follow=False)[-1].mode is Mode.STOP
    assert robot.executor.reset()
    # the chunk from before the reset is forgotten, too
    assert robot.run(0.1)[-1].why == 'no_target'
    robot.executor.offer(received(0.005, sequence=2, start=robot.ros_now), robot.ros_now)
    assert robot.run(0.1)[-1].mode is Mode.MOVE


def test_no_grip_while_a_stop_lasts():
    robot = Robot()
    robot.executor.filter.stop('operator_stop')
    robot.executor.offer(received(0.005, gripper=0.0), 0)
    robot.run(0.2)
    assert robot.grips == []


@pytest.mark.parametrize(
    ('pose', 'code'),
    [
        (Pose(np.array([np.nan, 0.0, 0.3]), HOME.quaternion), 'bad_state:measured_pose'),
        (Pose(np.array([0.5, 0.3, 0.3]), HOME.quaternion), 'state_jump'),
    ],
)
def test_a_measured_pose_that_is_not_believed_is_what_the_hold_names(pose, code):
    """Targets made from it would be refused first, and for another reason."""
    robot = Robot()
    robot.executor.offer(received(0.005), 0)
    robot.run(0.12)
    robot.pose = pose
    held = robot.run(0.08, follow=False)
    assert {kind(command.why) for command in held} == {code}
    assert all(np.isfinite(command.pose.position).all() for command in held)
