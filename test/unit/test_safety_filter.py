"""The safety filter follows targets within its bounds, and every stop has its reason."""

import math

import numpy as np
import pytest
from checked_filter import (
    DOWN,
    HOME,
    LIMITS,
    TICK,
    ZERO,
    checker,
    follow,
    gap,
    started,
    tilt,
    vector,
)

from lightvla_ros.contract.manifest import EXECUTIONS
from lightvla_ros.errors import ConfigError
from lightvla_ros.policy.actions import axis_angle_from_quaternion, quaternion_from_axis_angle
from lightvla_ros.policy.poses import Pose, moved, product, quaternion_of, rotated, turn_between
from lightvla_ros.runtime.reasons import kind
from lightvla_ros.runtime.safety_filter import Mode, SafetyFilter
from lightvla_ros.runtime.safety_limits import SafetyLimits

# --- rotations


def test_single_rotations_agree_with_those_of_a_whole_chunk():
    vectors = (
        np.random.default_rng(1).standard_normal((50, 3)) * np.geomspace(1e-13, 2, 50)[:, None]
    )
    many = quaternion_from_axis_angle(vectors)
    for vector_, quaternion in zip(vectors, many, strict=True):
        np.testing.assert_allclose(quaternion_of(vector_), quaternion, atol=1e-15)
        expected = axis_angle_from_quaternion(quaternion[None])[0]
        for start in (DOWN, many[-1]):
            np.testing.assert_allclose(
                turn_between(start, product(quaternion, start)), expected, rtol=1e-6, atol=1e-14
            )
    quarter = quaternion_of(vector(0, 0, math.pi / 2))
    np.testing.assert_allclose(rotated(quarter, vector(1, 2, 3)), [-2, 1, 3])


# --- what moves


def test_a_target_within_the_bounds_is_reached_exactly():
    arm = started()
    target = moved(HOME, vector(0.03, -0.02, 0.01), vector(0.1, 0.05, -0.2))
    _, command = follow(arm, target, 60)
    assert command.mode is Mode.MOVE
    assert command.limited == ''
    assert gap(command.pose, target) == pytest.approx((0, 0), abs=1e-6)


def test_the_motion_is_as_fast_as_the_bounds_allow_and_straight():
    arm = started(max_step_translation=0.2, shortened_translation=1.0)
    direction = vector(2, -1, 1) / math.sqrt(6)
    target = moved(HOME, 0.15 * direction, ZERO)
    now, speeds = 0.0, []
    for _ in range(100):
        before = arm.last[1].position
        now, command = follow(arm, target, 1, now)
        step = command.pose.position - before
        speeds.append(np.linalg.norm(step) / TICK)
        offset = command.pose.position - HOME.position
        assert np.linalg.norm(offset - (offset @ direction) * direction) < 1e-9
        assert offset @ direction <= 0.15 + 1e-5
    assert max(speeds) > 0.98 * LIMITS.max_speed
    assert gap(command.pose, target)[0] < 1e-6
    # 0.6 s at full speed, and about 0.2 s to speed up and brake
    assert sum(speed > 1e-3 for speed in speeds) < 85


def test_a_target_that_moves_is_followed_closely():
    arm = started()
    now = 0.0
    for step in range(1, 150):
        target = moved(HOME, vector(0, 0.1 * step * TICK, 0), ZERO)
        now, command = follow(arm, target, 1, now)
    assert command.limited == ''
    assert gap(command.pose, target)[0] < 0.1 * 0.06  # 60 ms behind


@pytest.mark.parametrize(
    ('at', 'step', 'code'),
    [
        (vector(0.69, 0.0, 0.3), vector(0.05, 0, 0), 'outside_box'),
        (vector(0.5, -0.39, 0.3), vector(0, -0.05, 0), 'outside_box'),
        (vector(0.5, 0.0, 0.02), vector(0, 0, -0.05), 'outside_box'),
        (vector(0.54, 0.0, 0.1), vector(0.05, 0, 0), 'keep_out'),
        (vector(0.6, 0.0, 0.21), vector(0, 0, -0.05), 'keep_out'),
    ],
)
def test_a_wall_shortens_the_motion_and_then_holds_it(at, step, code):
    arm = started(at=Pose(at, DOWN))
    target = Pose(at + step, DOWN)
    now, command = follow(arm, target, 100)
    assert command.mode is Mode.MOVE
    assert command.limited == code
    assert gap(command.pose, Pose(at, DOWN))[0] == pytest.approx(0.01, abs=1e-6)
    now, command = follow(arm, target, 20, now)
    assert (command.mode, command.why) == (Mode.HOLD, code)
    now, command = follow(arm, Pose(at, DOWN), 50, now)
    assert command.mode is Mode.MOVE
    assert gap(command.pose, Pose(at, DOWN))[0] < 1e-6


def test_a_target_behind_a_keep_out_box_is_not_reached_through_it():
    arm = started(
        at=Pose(vector(0.53, 0.0, 0.1), DOWN),
        max_step_translation=0.2,
        keep_out=((0.55, -0.1, 0.01, 0.56, 0.1, 0.2),),
    )
    _, command = follow(arm, Pose(vector(0.6, 0.0, 0.1), DOWN), 100)
    assert command.limited in ('stretched', 'too_fast')
    assert command.pose.position[0] == pytest.approx(0.55, abs=1e-6)


def test_the_cone_stops_a_tilt_and_leaves_turns_about_its_axis_free():
    arm = started(max_tilt=0.2)
    now, command = follow(arm, moved(HOME, ZERO, vector(0.3, 0, 0)), 90)
    assert command.limited == 'outside_cone'
    assert 0.15 < tilt(command.pose.quaternion) <= 0.2 + 1e-9
    arm = started(max_tilt=0.2)
    target = moved(HOME, ZERO, vector(0, 0, 0.4))
    _, command = follow(arm, target, 150)
    assert gap(command.pose, target)[1] < 1e-6


def test_an_arm_that_is_blocked_is_pushed_no_farther_than_the_stretch():
    for execution in EXECUTIONS:
        arm = started(execution)
        now, command = follow(arm, moved(HOME, vector(0, 0.06, 0), ZERO), 80, lag=1.0)
        assert command.mode is Mode.MOVE
        assert command.limited == 'stretched'
        assert command.pose.position[1] == pytest.approx(
            0.9 * arm.filter.limits.max_stretch_translation
        )


# --- what holds and what stops

NAN = Pose(vector(0.5, math.nan, 0.3), DOWN)

HOLDS = {
    'bad_target': lambda arm, now: arm.step(now, NAN),
    'step_too_long': lambda arm, now: arm.step(now, moved(HOME, vector(0, 0.3, 0), ZERO)),
    'no_target': lambda arm, now: arm.step(now, None),
    'camera_stale:wrist': lambda arm, now: arm.step(now, None, 'camera_stale:wrist'),
    'bad_time': lambda arm, now: arm.step(now - 1, HOME),
    'late_step': lambda arm, now: arm.step(now + 0.2, HOME),
    'state_stale:measured_pose': lambda arm, now: [
        arm.step(now + 0.05 * step, HOME) for step in (1, 2, 3)][-1],
    'bad_state:measured_pose': lambda arm, now: (arm.measure(now, NAN), arm.step(now, HOME))[1],
    'state_jump': lambda arm, now: (
        arm.measure(now, moved(HOME, vector(0, 0.2, 0), ZERO)), arm.step(now, HOME))[1],
    'stretched': lambda arm, now: (
        arm.measure(now, moved(arm.believed, vector(0, 0.06, 0), ZERO)), arm.step(now, HOME))[1],
    'enable_released': lambda arm, now: (
        arm.filter.enable(now, False), arm.step(now, HOME))[1],
    'enable_missing': lambda arm, now: [
        (arm.measure(now + 0.05 * step, arm.believed), arm.step(now + 0.05 * step, HOME))[1]
        for step in range(7)][-1],
}  # fmt: skip


@pytest.mark.parametrize('execution', EXECUTIONS)
@pytest.mark.parametrize('cause', HOLDS)
def test_each_cause_holds_and_the_hold_ends_with_it(cause, execution):
    arm = started(execution)
    target = moved(HOME, vector(0, -0.04, 0), ZERO)
    now, command = follow(arm, target, 15, lag=0.1)
    assert arm.moves > 5
    command = HOLDS[cause](arm, now)
    assert (command.mode, kind(command.why)) == (Mode.HOLD, cause)
    now += 0.5
    arm.measure(now, arm.believed)
    arm.filter.enable(now, True)
    arm.step(now, arm.last[1])  # half a second without a step holds once more, uncounted
    now, command = follow(arm, target, 10, now)
    assert command.mode is Mode.MOVE, command


def test_a_hold_relaxes_a_spring_at_once_and_brakes_a_displacement():
    for execution, at_once, ticks in (('spring', True, 3), ('displacement', False, 20)):
        arm = started(execution)
        now, command = follow(arm, moved(HOME, vector(0, 0.08, 0), ZERO), ticks, lag=0.3)
        lead = command.pose.position[1] - arm.believed.position[1]
        assert lead > 0.003
        stood = command.pose.position[1]
        command = arm.step(now + TICK, None)
        assert command.relaxed == at_once
        if at_once:
            assert gap(command.pose, arm.believed) == (0, 0)
            continue
        for step in range(2, 30):
            command = arm.step(now + step * TICK, None)
        assert not command.relaxed
        assert 0.005 < command.pose.position[1] - stood < 0.03


def test_the_set_point_of_a_spring_jumps_as_far_as_the_speed_of_the_arm_allows():
    arm = started('spring')
    near = moved(HOME, vector(0, 0.03, 0), ZERO)
    assert gap(arm.step(TICK, near).pose, near)[0] < 1e-9
    far = arm.step(2 * TICK, moved(HOME, vector(0, 0.06, 0), ZERO))
    assert far.limited == 'stretched'
    lead = far.pose.position[1]
    assert lead == pytest.approx(0.9 * LIMITS.max_speed / 6.1)


def test_a_held_arm_that_sags_does_not_drag_its_target_along():
    arm = started('spring')
    held = arm.step(TICK, None).pose
    for step in range(2, 100):
        arm.measure(step * TICK, moved(HOME, vector(0, 0, -0.0004 * step), ZERO))
        command = arm.step(step * TICK, None)
        assert gap(command.pose, held)[0] == 0
    for step in range(100, 200):  # a person pushes it down
        arm.measure(step * TICK, moved(HOME, vector(0, 0, -0.0004 * step), ZERO))
        command = arm.step(step * TICK, None)
    assert 0.03 < np.linalg.norm(command.pose.position - held.position) < 0.08


@pytest.mark.parametrize('execution', EXECUTIONS)
def test_the_second_hold_of_one_cause_within_the_window_stops(execution):
    arm = started(execution)
    now, _ = follow(arm, HOME, 5)
    assert arm.step(now, NAN).mode is Mode.HOLD
    now, command = follow(arm, HOME, 400, now)
    assert command.mode is Mode.MOVE
    command = arm.step(now, NAN)
    assert (command.mode, command.why) == (Mode.STOP, 'repeated_hold:bad_target')
    now, command = follow(arm, HOME, 1000, now)
    assert (command.mode, command.why) == (Mode.STOP, 'repeated_hold:bad_target')
    arm.reset()
    command = arm.step(now, HOME)
    assert (command.mode, command.why) == (Mode.HOLD, 'state_missing')
    _, command = follow(arm, HOME, 3, now)
    assert command.mode is Mode.MOVE


def test_holds_that_are_far_apart_or_of_several_causes_or_of_a_person_do_not_stop():
    arm = started()
    now = 0.0
    for _ in range(3):
        assert arm.step(now, NAN).mode is Mode.HOLD
        now, command = follow(arm, HOME, 510, now)
        assert command.mode is Mode.MOVE
    assert arm.step(now, NAN).mode is Mode.HOLD
    now, command = follow(arm, HOME, 5, now)
    assert arm.step(now, moved(HOME, vector(0, 0.3, 0), ZERO)).mode is Mode.HOLD
    for _ in range(5):
        now, command = follow(arm, HOME, 5, now)
        assert command.mode is Mode.MOVE
        arm.filter.enable(now, False)
        assert kind(arm.step(now, HOME).why) == 'enable_released'
        now, command = follow(arm, HOME, 5, now)
        assert arm.step(now, None, 'no_target').mode is Mode.HOLD


@pytest.mark.parametrize('code', ['controller_halted', 'operator_stop'])
def test_a_stop_from_outside_lasts_until_the_reset_and_keeps_its_first_reason(code):
    arm = started('displacement')
    now, _ = follow(arm, moved(HOME, vector(0, 0.05, 0), ZERO), 20, lag=0.5)
    arm.filter.stop(code, 'status 2')
    arm.filter.stop('operator_stop')
    command = arm.step(now + TICK, HOME)
    assert (command.mode, command.why) == (Mode.STOP, f'{code} status 2')
    assert gap(command.pose, arm.believed) == (0, 0)
    now, command = follow(arm, HOME, 50, now)
    assert command.mode is Mode.STOP
    arm.reset()
    _, command = follow(arm, HOME, 2, now)
    assert command.mode is Mode.MOVE
    with pytest.raises(KeyError):
        arm.filter.stop('paused')


def test_a_reset_waits_until_the_commanded_pose_is_at_rest():
    arm = started()
    now, _ = follow(arm, moved(HOME, vector(0, 0.05, 0), ZERO), 10)
    assert not arm.filter.reset()
    now, command = follow(arm, None, 30, now)
    assert command.mode is Mode.HOLD
    assert arm.filter.reset()


def test_an_arm_that_runs_away_is_stopped():
    arm = started('spring')
    arm.measure(TICK, moved(HOME, vector(0, 0.09, 0), ZERO))
    command = arm.step(TICK, HOME)
    assert (command.mode, kind(command.why)) == (Mode.STOP, 'deviation')
    assert command.pose.position[1] == pytest.approx(0.09)


def test_a_jumped_state_stays_unbelieved_until_the_reset():
    arm = started()
    away = moved(HOME, vector(0, 0.15, 0), ZERO)
    for step in range(1, 50):
        arm.filter.enable(step * TICK, True)
        arm.measure(step * TICK, away)
        command = arm.step(step * TICK, HOME)
        assert kind(command.why) == 'state_jump'
        assert gap(command.pose, HOME)[0] < 1e-9
    arm.reset()
    arm.find(0.5, away)
    command = arm.step(0.5, away)
    assert command.mode is Mode.MOVE
    assert gap(command.pose, away) == pytest.approx((0, 0), abs=1e-6)


def test_an_arm_outside_the_workspace_is_not_pulled_back_from_afar():
    outside = Pose(vector(0.5, 0.0, -0.2), DOWN)
    arm = checker('spring')
    arm.filter.enable(0.0, True)
    arm.find(0.0, outside)
    command = arm.step(0.0, outside)
    assert (command.mode, command.why) == (Mode.STOP, 'outside_workspace')
    assert gap(command.pose, outside) == (0, 0)
    arm.reset()
    near = Pose(vector(0.5, 0.0, -0.02), DOWN)
    arm.find(0.01, near)
    command = arm.step(0.01, near)
    assert command.mode is Mode.MOVE
    assert command.pose.position[2] == LIMITS.box_min[2]


def test_the_first_steps_say_what_is_missing_and_send_nothing():
    arm = checker()
    command = arm.step(0.0, HOME)
    assert (command.pose, command.mode, command.why) == (None, Mode.HOLD, 'state_missing')
    arm.find(0.01, HOME)
    command = arm.step(0.01, HOME)
    assert (command.mode, command.why) == (Mode.HOLD, 'enable_missing')
    assert gap(command.pose, HOME) == (0, 0)
    arm.filter.enable(0.02, True)
    assert arm.step(0.02, HOME).mode is Mode.MOVE


def test_a_measured_quaternion_that_is_a_little_off_is_commanded_as_a_unit_one():
    arm = checker(enable_timeout=0.0)
    arm.find(0.0, Pose(HOME.position, DOWN * 1.0009))
    assert np.linalg.norm(arm.step(0.0, HOME).pose.quaternion) == pytest.approx(1, abs=1e-12)
    arm.measure(0.01, Pose(HOME.position, DOWN * 1.002))
    assert arm.step(0.01, HOME).why == 'bad_state:measured_pose'


def test_a_first_pose_that_no_arm_can_reach_is_not_commanded():
    arm = checker(enable_timeout=0.0)
    for x in (1e300, 3.1):
        arm.filter.measure(0.0, Pose(vector(x, 0.0, 0.3), DOWN))
        command = arm.step(0.0, HOME)
        assert (command.pose, command.why) == (None, 'bad_state:measured_pose')


def test_a_first_pose_is_believed_when_the_next_one_is_near_it():
    arm = checker(enable_timeout=0.0)
    arm.measure(0.0, moved(HOME, vector(0, 0.3, 0), ZERO))  # an outlier
    assert arm.step(0.0, HOME).pose is None
    arm.measure(0.01, HOME)
    command = arm.step(0.01, HOME)
    assert (command.pose, kind(command.why)) == (None, 'state_jump')
    arm.measure(0.02, HOME)
    assert arm.step(0.02, HOME).mode is Mode.MOVE


def test_without_a_dead_man_none_is_needed():
    arm = checker(enable_timeout=0.0)
    arm.find(0.0, HOME)
    assert arm.step(0.0, HOME).mode is Mode.MOVE


# --- limits


@pytest.mark.parametrize(
    ('changes', 'named'),
    [
        ({'max_speed': 0.0}, 'max_speed is 0.0; allowed is 0.001 to 1 m/s'),
        ({'max_jerk': math.nan}, 'max_jerk'),
        ({'max_tilt': True}, 'max_tilt'),
        ({'max_step_rotation': '1'}, 'max_step_rotation'),
        ({'box_min': (0, 0)}, 'box_min'),
        ({'box_min': (0.8, 0.0, 0.0)}, 'box_min and box_max: x'),
        ({'keep_out': ((0, 0, 0, 1, 1),)}, r'keep_out\[0\]'),
        ({'keep_out': ((0, 0, 0, 1, -1, 1),)}, r'keep_out\[0\]'),
        ({'approach_axis': (0, 0, 0)}, 'approach_axis'),
        ({'deviation_translation': 0.05}, 'deviation_translation must be more'),
        ({'state_timeout': 1.0}, 'max_stretch_translation is 0.05, less than'),
    ],
)
def test_limits_out_of_range_are_refused_by_name(changes, named):
    with pytest.raises(ConfigError, match=named):
        SafetyLimits(**changes)


def test_a_displacement_may_turn_no_faster_than_the_arm():
    with pytest.raises(ConfigError, match='max_angular_speed is 3; allowed is at most 2.5 rad/s'):
        SafetyFilter(SafetyLimits(max_angular_speed=3.0), 'displacement')


def test_an_unknown_execution_is_refused():
    with pytest.raises(ConfigError, match="execution is 'twist'; choose spring or displacement"):
        SafetyFilter(SafetyLimits(), 'twist')
