"""MoveIt Servo's rules on LIBERO's arm: what it takes, what it refuses, and how fast it moves."""

import numpy as np
import pytest

from lightvla_ros.policy.poses import Pose, difference, length, moved
from lightvla_ros.sim.libero_env import LiberoEnv
from lightvla_ros.sim.servo_arm import CommandType, ServoArm, ServoCommand, ServoSettings, Status

pytestmark = pytest.mark.sim
FRAME = 'world'
TICK = 0.01


@pytest.fixture(scope='module')
def env():
    built = LiberoEnv('libero_object', 0, cameras=False)
    yield built
    built.close()


class Driver:
    """Sends one command each tick, as the chunk executor does."""

    def __init__(self, env, kind=CommandType.TWIST, **settings):
        self.arm = ServoArm(env, FRAME, ServoSettings(**settings))
        self.now = 100.0
        self.kind = kind
        self.fastest = self.widest = 0.0
        self.statuses = []
        if kind is not None:
            assert self.arm.choose(kind)

    def run(self, seconds, value=None, frame=FRAME, age=0.0, kind=None):
        """Run for a while; return the translation and the rotation of it."""
        start = before = self.arm.pose
        for _ in range(round(seconds / TICK)):
            if value is not None:
                command = ServoCommand(value, frame, self.now - age)
                self.arm.take(kind or self.kind or CommandType.TWIST, command)
            self.arm.servo(self.now)
            self.statuses.append(self.arm.status)
            self.arm.run(TICK)
            self.arm.refresh()
            self.now += TICK
            shift, turn = difference(before, self.arm.pose)
            self.fastest = max(self.fastest, length(shift) / TICK)
            self.widest = max(self.widest, length(turn) / TICK)
            before = self.arm.pose
        return difference(start, before)


@pytest.fixture
def driver(env):
    env.reset(0, 0)
    return Driver(env)


def twist(x=0.0, y=0.0, z=0.0, rx=0.0, ry=0.0, rz=0.0):
    return np.array([x, y, z, rx, ry, rz])


def still(motion, tolerance=0.001):
    return length(motion[0]) < tolerance and length(motion[1]) < 0.01


def test_commands_are_dropped_before_a_type_was_chosen_and_those_of_another_type(env):
    env.reset(0, 0)
    driver = Driver(env, kind=None)
    assert still(driver.run(0.5, twist(y=0.1)))
    assert not driver.arm.choose(3)
    assert driver.arm.choose(CommandType.POSE)
    assert still(driver.run(0.5, twist(y=0.1), kind=CommandType.TWIST))
    assert driver.arm.choose(CommandType.TWIST)
    assert not still(driver.run(0.5, twist(y=0.1)))


def test_a_twist_moves_as_fast_as_it_says_about_the_end_effector(driver):
    driver.run(0.3, twist(y=0.1))
    shift, turn = driver.run(1.0, twist(y=0.1))
    assert shift == pytest.approx([0, 0.1, 0], abs=0.003)
    assert length(turn) < 0.01
    driver.run(0.3, twist(rz=0.4))
    shift, turn = driver.run(1.0, twist(rz=0.4))
    assert length(shift) < 0.005
    assert turn == pytest.approx([0, 0, 0.4], abs=0.01)


def test_speeds_are_cut_in_their_direction(driver):
    shift, turn = driver.run(0.5, twist(y=0.8, z=0.6, rz=3.0))
    assert driver.fastest < 0.42
    assert driver.widest < 0.85
    assert length(shift) > 0.15
    assert shift / length(shift) == pytest.approx([0, 0.8, 0.6], abs=0.05)
    assert 0.3 < turn[2] < 0.41


def test_an_old_command_halts_smoothly_and_an_unstamped_one_never_moves(driver):
    assert not still(driver.run(0.5, twist(y=0.2)))
    halting = driver.run(0.2)  # nothing is sent: 0.1 s go on, then it halts
    assert 0.015 < halting[0][1] < 0.03
    assert still(driver.run(0.5))
    assert still(driver.run(0.5, twist(y=0.2), age=0.11))
    assert still(driver.run(0.5, twist(y=0.2), age=driver.now))
    assert not still(driver.run(0.5, twist(y=0.2), age=0.05))


@pytest.mark.parametrize(
    ('value', 'frame'),
    [
        (twist(y=0.1), 'panda_link0'),
        (twist(y=0.1), ''),
        (twist(y=np.nan), FRAME),
        (twist(rz=np.inf), FRAME),
    ],
)
def test_another_frame_and_what_is_no_number_are_invalid(driver, value, frame):
    assert still(driver.run(0.3, value, frame))
    assert set(driver.statuses) == {Status.INVALID}
    driver.run(0.1, twist(y=0.1))
    assert driver.statuses[-1] is Status.FINE


def test_a_pose_is_approached_at_the_speed_of_the_scale_and_kept(env):
    env.reset(0, 0)
    driver = Driver(env, CommandType.POSE)
    goal = moved(driver.arm.pose, np.array([0.05, 0.1, 0.15]), np.array([0, 0, 0.5]))
    driver.run(0.3, goal)
    assert difference(driver.arm.pose, goal)[0][2] > 0.05  # 0.19 m take 0.47 s
    driver.run(0.7, goal)
    assert driver.fastest < 0.42
    assert driver.widest < 0.85
    assert still(driver.run(0.5, goal))
    shift, turn = difference(driver.arm.pose, goal)
    assert length(shift) < 0.003
    assert length(turn) < 0.015
    driver.run(0.1, Pose(goal.position * np.nan, goal.quaternion))
    assert driver.statuses[-1] is Status.INVALID


def test_it_slows_down_at_a_singularity_and_halts_in_it(driver):
    """The arm stretches until its elbow is nearly straight."""
    driver.run(5.0, twist(x=0.25))
    codes = [driver.statuses.index(code) for code in (Status.FINE, 1, Status.SINGULARITY)]
    assert codes == sorted(codes)
    assert still(driver.run(0.5, twist(x=0.25)))


def test_in_a_singularity_it_halts_wherever_it_is_sent(env):
    env.reset(0, 0)
    driver = Driver(env, slow_at=5.0, halt_at=8.0)  # it is at 8.6
    for value in (twist(x=0.25), twist(x=-0.25), twist(rz=0.5)):
        assert still(driver.run(0.3, value))
    assert set(driver.statuses) == {Status.SINGULARITY}


def test_it_leaves_the_neighbourhood_of_a_singularity(driver):
    while driver.arm.status is not Status.APPROACHES_SINGULARITY:
        driver.run(TICK, twist(x=0.25))
    driver.run(0.2, twist(x=0.25))
    driver.run(0.1, twist(x=-0.25))
    assert driver.statuses[-1] is Status.LEAVES_SINGULARITY
    while driver.arm.status is Status.LEAVES_SINGULARITY:
        driver.run(TICK, twist(x=-0.25))
    assert driver.arm.status is Status.FINE


def test_it_halts_at_the_bound_of_a_joint_and_goes_back(driver):
    driver.run(5.0, twist(rz=-0.8))
    assert driver.statuses[-1] is Status.JOINT_BOUND
    assert still(driver.run(0.5, twist(rz=-0.8)))
    shift, turn = driver.run(0.5, twist(rz=0.8))
    assert driver.statuses[-1] is Status.FINE
    assert turn[2] > 0.2


def test_a_pause_stops_it_where_it_is(driver):
    driver.run(0.3, twist(y=0.2))
    driver.arm.pause(True)
    driver.run(0.1, twist(y=0.2))
    assert still(driver.run(0.5, twist(y=0.2)))
    driver.arm.pause(False)
    assert still(driver.run(0.2)), 'what came in the pause is not carried out after it'
    assert not still(driver.run(0.3, twist(y=0.2)))
