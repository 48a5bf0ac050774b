"""The control law of crisp_controllers on LIBERO's arm: what the real one does, this one does."""

import numpy as np
import pytest

from lightvla_ros.contract.libero import CONTROL_PERIOD, TRANSLATION_SCALE
from lightvla_ros.policy.actions import axis_angle_from_quaternion, quaternion_from_axis_angle
from lightvla_ros.policy.policy import Policy
from lightvla_ros.policy.poses import Pose, moved, product
from lightvla_ros.runtime.chunk_executor import ChunkExecutor
from lightvla_ros.runtime.chunk_timeline import ReceivedChunk
from lightvla_ros.runtime.reasons import kind
from lightvla_ros.runtime.safety_filter import Mode
from lightvla_ros.runtime.safety_limits import SafetyLimits
from lightvla_ros.sim.closed_loop import observe
from lightvla_ros.sim.crisp_arm import CrispArm, CrispSettings
from lightvla_ros.sim.franka_hand import OPEN_WIDTH
from lightvla_ros.sim.libero_env import LiberoEnv

pytestmark = pytest.mark.sim
AHEAD = 0.01  # m
HAND_SPEED = 0.1  # m/s, franka_gripper's


@pytest.fixture(scope='module')
def env():
    built = LiberoEnv('libero_object', 0)
    yield built
    built.close()


@pytest.fixture
def arm(env):
    env.reset(0, 0)
    return CrispArm(env)


def test_it_holds_the_pose_of_its_activation(env, arm):
    before = env.state()
    arm.run(2.0)
    after = env.state()
    assert np.linalg.norm(after.position - before.position) < 0.001
    turn = product(after.quaternion, before.quaternion * [-1, -1, -1, 1])
    assert np.linalg.norm(axis_angle_from_quaternion(turn)) < 0.01


def test_it_goes_to_its_target_and_keeps_it_for_ever(env, arm):
    start = env.state()
    target = start.position + [0.03, -0.04, 0.05]
    turn = quaternion_from_axis_angle(np.array([[0, 0, 0.3]]))[0]
    arm.set_target(Pose(target, product(turn, start.quaternion)))
    for _ in range(3):  # nothing is sent any more: the real one has no timeout either
        arm.run(1.0)
        end = env.state()
        assert np.linalg.norm(end.position - target) < 0.003
        left = product(product(turn, start.quaternion), end.quaternion * [-1, -1, -1, 1])
        assert np.linalg.norm(axis_angle_from_quaternion(left)) < 0.02


def test_a_set_point_is_a_spring_as_with_libero_s_controller(env, arm):
    def speed(step):
        places = []
        for _ in range(20):
            step()
            places.append(env.state().position[0])
        return (places[-1] - places[9]) / 10 / 0.05

    def spring():
        arm.refresh()
        arm.set_target(moved(arm.pose, np.array([AHEAD, 0, 0]), np.zeros(3)))
        arm.run(CONTROL_PERIOD)

    crisp = speed(spring)
    env.reset(0, 0)
    osc = speed(lambda: env.step(np.array([AHEAD / TRANSLATION_SCALE, 0, 0, 0, 0, 0, -1])))
    print(f'{osc:.4f} and {crisp:.4f} m/s')
    assert osc > 0.04
    assert crisp == pytest.approx(osc, rel=0.05)


def test_the_error_is_limited_so_a_far_target_pulls_no_harder(env):
    def way(distance):
        env.reset(0, 0)
        arm = CrispArm(env, CrispSettings(clip_translation=0.05))
        start = env.state()
        arm.set_target(Pose(start.position + [0, 0, distance], start.quaternion))
        arm.run(0.2)
        return env.state().position[2] - start.position[2]

    assert way(0.3) == pytest.approx(way(0.15), rel=0.01)
    assert way(0.3) < 0.05  # with an error of 0.3 m it would be 0.2


def test_torques_change_no_faster_than_allowed(env):
    env.reset(0, 0)
    arm = CrispArm(env, CrispSettings(max_delta_torque=0.1))
    start = env.state()
    arm.set_target(Pose(start.position + [0, 0, 0.1], start.quaternion))
    before = arm._torque.copy()
    for _ in range(20):
        arm.run(0.002)
        assert np.abs(arm._torque - before).max() <= 0.1 * 2 + 1e-9
        before = arm._torque.copy()


def test_the_hand_takes_its_time(env, arm):
    def width():
        return float(np.abs(env.state().fingers).sum())

    arm.run(0.5)
    assert width() > 0.075
    arm.hand.move(0.0, HAND_SPEED)
    arm.run(0.4)  # half of the 8 cm
    assert 0.03 < width() < 0.055
    arm.run(0.5)
    assert width() < 0.01


def test_policy_executor_and_controller_together_solve_a_task(env, bundled_policy):
    """Chunks through timeline, safety filter and gripper switch at 100 Hz, without ROS.

    The bundled policy never saw such an arm and fails initial state 0 (docs/how-to/fr3-crisp.md).
    """
    limits = SafetyLimits(
        box_min=(-1.0, -1.0, 0.0),
        box_max=(1.0, 1.0, 2.0),
        max_speed=1.0,
        max_angular_speed=10.0,
        max_stretch_translation=0.12,
        deviation_translation=0.3,
        max_stretch_rotation=1.0,
        deviation_rotation=1.5,
        enable_timeout=0.0,
    )
    executor = ChunkExecutor(limits, 'spring')
    env.reset(1, 0)
    arm = CrispArm(env)
    tick, chunks, solved, modes, commanded = 0, 0, False, set(), -99
    with Policy.load(bundled_policy) as policy:
        executor.measure(0.0, arm.pose)  # the first pose is not believed alone
        while not solved and tick < 100 * 14:  # the suite's 280 steps
            now = tick * 10_000_000
            if tick % 40 == 0:  # 8 steps of 50 ms
                chunk = policy.act(observe(env, policy.manifest, env.instruction))
                received = ReceivedChunk(
                    chunk, now, now + 10_000_000, 'episode', chunks, 'spring', observed=now
                )
                assert kind(executor.offer(received, now)) in ('', 'hand_moves')
                chunks += 1
            env.simulation.sim.forward()
            state = env.state()
            executor.measure(tick * 0.01, Pose(state.position, state.quaternion))
            moves = tick - commanded < 20 or not arm.hand.rests()
            executor.hand(moves, moves and tick - commanded >= 40, now)
            sent = executor.tick(tick * 0.01, now)
            modes.add(sent.command.mode)
            arm.set_target(sent.command.pose)
            if sent.gripper is not None:
                arm.hand.move(OPEN_WIDTH if sent.gripper > 0.5 else 0.0, HAND_SPEED)
                commanded = tick
            solved = arm.run(0.01)
            tick += 1
    print(f'solved after {tick / 100:.2f} s')
    assert solved
    assert Mode.STOP not in modes
