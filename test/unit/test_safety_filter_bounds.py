"""Whatever comes in, no commanded pose leaves a bound of the safety filter."""

import math
from dataclasses import replace

import numpy as np
import pytest
from checked_filter import DOWN, HOME, LIMITS, TICK, ZERO, checker, vector
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from lightvla_ros.contract.manifest import EXECUTIONS
from lightvla_ros.policy.actions import quaternion_from_axis_angle
from lightvla_ros.policy.poses import Pose, moved, product
from lightvla_ros.runtime.safety_filter import Mode, SafetyFilter

GENTLE = replace(LIMITS, max_jerk=30.0, max_angular_jerk=60.0)  # the jerk bounds most motions


def random_inputs(make, rng, steps, rough):
    """Drive a filter by random targets and an arm that follows, is pushed or lies.

    :param rough: Probability that an input is bad.
    :param make: Returns a new checker.
    :returns: How often each mode was met, and in how many steps the pose moved.
    """
    ticks = rng.choice([0.0, 0.002, TICK, TICK, TICK, 0.02, 0.05], steps).tolist()
    times = rng.choice([math.nan, math.inf, -1.0, 0.5], steps).tolist()
    reaches = rng.choice([0.01, 0.05, 0.09, 0.5], (steps, 1)) * rng.standard_normal((steps, 3))
    turns = rng.choice([0.0, 0.2, 0.5], (steps, 1)) * rng.standard_normal((steps, 3))
    noise = 2e-4 * rng.standard_normal((steps, 3))
    pushes = rng.standard_normal((steps, 3))
    lies = rng.choice([math.nan, 0.3, 1.0], steps).tolist()
    bads = (rng.random((steps, 7)) < rough).tolist()
    dice = (rng.random((steps, 5)) < (0.05, 0.005, 0.1, 0.2, 0.1)).tolist()
    start = Pose(vector(0.53, 0.0, 0.17), DOWN)  # beside the keep-out box
    clock, goal, push = 0.0, start, ZERO
    arm, moves, modes = make(), 0, {mode: 0 for mode in Mode}
    for i in range(steps):
        bad_time, late, silent, released, lie, wrong, none = bads[i]
        new_goal, new_push, unseen, reset, renew = dice[i]
        clock += ticks[i] + 0.3 * late
        if not silent:
            arm.filter.enable(clock, not released)
        truth = arm.last[1] if arm.last else start
        if new_goal:
            goal = moved(truth, reaches[i], turns[i])
        push = (pushes[i] if new_push else push) * 0.9
        measured = moved(truth, 0.03 * push + noise[i], 0.3 * push + 10 * noise[i])
        if lie:
            measured = Pose(measured.position + lies[i], DOWN)
        if not unseen:
            arm.measure(clock, measured)
        target = Pose(goal.position + lies[i], goal.quaternion) if wrong else goal
        command = arm.step(times[i] if bad_time else clock, None if none else target)
        modes[command.mode] += 1
        if command.mode is Mode.STOP and reset:
            arm.reset()
            goal, push = start, ZERO
            if renew or command.why == 'outside_workspace':
                moves += arm.moves
                arm = make()
    return modes, moves + arm.moves


@pytest.mark.parametrize('limits', [LIMITS, GENTLE], ids=['default', 'gentle'])
@pytest.mark.parametrize('execution', EXECUTIONS)
def test_25_000_random_steps_keep_every_bound(execution, limits):
    rng = np.random.default_rng(22)
    modes, moves = random_inputs(lambda: checker(execution, limits), rng, 25_000, rough=0.002)
    assert moves > 5000
    assert min(modes.values()) > 500, modes


def plan(name, **wrong):
    """A hole: the plan of the translation or rotation knows a bound that is too wide."""

    def plant(filter_):
        limits = replace(filter_.limits, **wrong)
        setattr(filter_, name, getattr(SafetyFilter(limits, 'spring'), name))

    return plant


def walls(name, change):
    """A hole: the half-spaces of the workspace are changed."""

    def plant(filter_):
        right = getattr(filter_.workspace, name)
        setattr(filter_.workspace, name, lambda *args: change(*right(*args)))

    return plant


def blind_to_stretch(filter_):
    right = filter_._over
    filter_._over = lambda gap, bound: '' if bound == 'max_stretch' else right(gap, bound)


HOLES = {
    'speed': plan('_translation', max_speed=0.26),
    'acceleration': plan('_translation', max_acceleration=3.2),
    'jerk': plan('_translation', max_jerk=33.0),
    'angular speed': plan('_rotation', max_angular_speed=0.62),
    'angular acceleration': plan('_rotation', max_angular_acceleration=6.3),
    'angular jerk': plan('_rotation', max_angular_jerk=66.0),
    'box': walls('walls', lambda normals, distances: (normals, distances + 0.001)),
    'keep-out': walls('walls', lambda normals, distances: (normals[:6], distances[:6])),
    'cone': walls('cone_walls', lambda normals, distances: (normals, distances + 0.003)),
    'stretch': blind_to_stretch,
}


@pytest.mark.parametrize('hole', HOLES)
def test_a_planted_hole_is_found(hole):
    """The checks above are worth something: each of them fails for a filter that is wrong."""

    def make():
        arm = checker('displacement', GENTLE if 'jerk' in hole else LIMITS)
        HOLES[hole](arm.filter)
        return arm

    with pytest.raises(AssertionError):
        random_inputs(make, np.random.default_rng(22), 25_000, rough=0.0)


NUMBERS = st.one_of(
    st.floats(-0.1, 0.1),
    st.floats(-3, 3),
    st.sampled_from([0.0, math.nan, math.inf, -math.inf, 1e300, 0.05, -0.05]),
)
VECTORS = st.tuples(NUMBERS, NUMBERS, NUMBERS).map(np.array)
SMALL = st.tuples(*[st.floats(-0.05, 0.05)] * 3).map(np.array)
TURNS = st.tuples(*[st.floats(-0.4, 0.4)] * 3).map(np.array)
USUAL = st.tuples(
    st.sampled_from([TICK, TICK, 0.002, 0.02]),
    st.sampled_from(['commanded', 'measured']),
    SMALL,
    TURNS,
    st.sampled_from(['follow', 'follow', 'lag']),
    st.just(ZERO),
    st.sampled_from(['on', 'recover']),
    st.integers(3, 20),
)
UNUSUAL = st.tuples(
    st.sampled_from([TICK, 0.0, 0.001, 0.05, 0.11, 1.0, -0.02, math.nan]),
    st.sampled_from(['commanded', 'measured', 'home', 'none']),
    st.one_of(SMALL, VECTORS),
    st.one_of(TURNS, VECTORS),
    st.sampled_from(['follow', 'still', 'lag', 'push', 'nothing', 'raw']),
    st.one_of(SMALL, VECTORS),
    st.sampled_from(['on', 'on', 'on', 'off', 'silent', 'reset', 'stop']),
    st.integers(1, 5),
)
STEPS = st.lists(st.one_of(USUAL, USUAL, USUAL, UNUSUAL), min_size=1, max_size=20)


def shifted(pose, shift, turn):
    quaternion = quaternion_from_axis_angle(turn)
    if np.isfinite(quaternion).all():
        quaternion = product(quaternion, pose.quaternion)
    return Pose(pose.position + shift, quaternion)


@pytest.mark.parametrize('execution', EXECUTIONS)
@given(steps=STEPS)
@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # to shrink a failing example takes minutes; add Phase.shrink to do so
    suppress_health_check=list(HealthCheck),
)
@pytest.mark.filterwarnings('ignore::RuntimeWarning')
def test_no_sequence_of_inputs_leaves_a_bound(execution, steps):
    arm = checker(execution)
    clock, truth, mode = 0.0, HOME, Mode.HOLD
    arm.filter.enable(0.0, True)
    arm.find(0.0, HOME)
    for elapsed, base, shift, turn, state, push, operator, repeats in steps:
        for _ in range(repeats):
            now = clock + elapsed
            if math.isfinite(now):
                clock = max(clock, now)
            if operator in ('on', 'recover', 'off'):
                arm.filter.enable(clock, operator != 'off')
            if operator == 'recover' and mode is Mode.STOP:
                arm.reset()
            if operator == 'stop':
                arm.filter.stop('operator_stop')
            elif operator == 'reset':
                arm.reset()
            commanded = arm.last[1] if arm.last else HOME
            if state == 'follow':
                truth = commanded
            elif state == 'lag':
                truth = Pose((truth.position + commanded.position) / 2, commanded.quaternion)
            elif state == 'push' and np.isfinite(push).all():
                truth = Pose(truth.position + np.clip(push, -0.2, 0.2), truth.quaternion)
            if state == 'raw':
                arm.measure(clock, shifted(HOME, push, push))
            elif state != 'nothing':
                arm.measure(clock, truth)
            start = {'measured': truth, 'commanded': commanded, 'home': HOME}
            target = None if base == 'none' else shifted(start[base], shift, turn)
            mode = arm.step(now, target).mode
