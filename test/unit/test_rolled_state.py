"""The state of the time when a chunk starts, from the steps that act until then."""

import numpy as np
import pytest

from lightvla_ros.policy.actions import Chunk, quaternion_from_axis_angle
from lightvla_ros.policy.poses import turn_between
from lightvla_ros.policy.state import RobotState
from lightvla_ros.runtime.rolled_state import REACHED, CommittedSteps

MS = 1_000_000
PERIOD = 50 * MS
START = 10**18
STATE = RobotState(
    np.array([0.5, 0.0, 0.3]), np.array([1.0, 0.0, 0.0, 0.0]), np.array([0.03, -0.03])
)


def steps(*along_y, turn=0.0):
    """A chunk whose step i moves ``along_y[i]`` metres along y and turns about z."""
    count = len(along_y)
    return Chunk(
        translations=np.column_stack([np.zeros(count), along_y, np.zeros(count)]),
        rotations=quaternion_from_axis_angle(np.tile([0, 0, turn], (count, 1))),
        gripper=np.zeros(count),
        period=PERIOD * 1e-9,
    )


def y_after(committed, begin, end):
    return committed.rolled(STATE, begin, end).position[1]


def test_without_steps_or_time_the_state_itself_comes_back():
    committed = CommittedSteps('displacement')
    assert committed.rolled(STATE, START, START + PERIOD) is STATE
    committed.add(steps(0.01, 0.01), START, START)
    for begin, end in ((START, START), (START + PERIOD, START), (START - PERIOD, START)):
        assert committed.rolled(STATE, begin, end) is STATE
    after = START + 2 * PERIOD
    assert committed.rolled(STATE, after, after + PERIOD) is STATE


def test_a_displacement_moves_the_arm_by_the_whole_step_and_a_spring_by_a_part():
    for execution, reached in (('displacement', 1.0), ('spring', 0.26)):
        committed = CommittedSteps(execution)
        committed.add(steps(0.01, 0.02, 0.04, turn=0.1), START, START)
        rolled = committed.rolled(STATE, START, START + 2 * PERIOD)
        assert rolled.position == pytest.approx([0.5, 0.03 * reached, 0.3])
        turn = turn_between(STATE.quaternion, rolled.quaternion)
        assert turn == pytest.approx([0, 0, 0.2 * reached])
        assert rolled.fingers is STATE.fingers


def test_a_step_that_acts_in_part_counts_in_part():
    committed = CommittedSteps('displacement')
    committed.add(steps(0.01, 0.02, 0.04), START, START)
    begin = START + 25 * MS
    assert y_after(committed, begin, begin + 5 * MS) == pytest.approx(0.001)
    assert y_after(committed, begin, START + 60 * MS) == pytest.approx(0.005 + 0.004)
    assert y_after(committed, begin, START + PERIOD * 100) == pytest.approx(0.005 + 0.06)


def test_a_spring_reaches_what_the_law_of_libero_says():
    """x'' = 150 (goal - x) - 2 sqrt(150) x', with the goal a step ahead of x every 50 ms."""
    x = v = 0.0
    travelled = []
    for _ in range(40):
        start, goal = x, x + 1.0
        for _ in range(50):
            v += 0.001 * (150 * (goal - x) - 2 * np.sqrt(150) * v)
            x += 0.001 * v
        travelled.append(x - start)
    assert travelled[-1] == pytest.approx(0.265, abs=0.005)
    assert REACHED['spring'] == pytest.approx(travelled[-1], rel=0.05)


def test_at_half_the_speed_steps_last_twice_as_long_and_reach_as_far():
    committed = CommittedSteps('spring', speed=0.5)
    committed.add(steps(0.01, 0.02), START, START)
    assert y_after(committed, START, START + PERIOD) == pytest.approx(0.26 * 0.005)
    assert y_after(committed, START, START + 4 * PERIOD) == pytest.approx(0.26 * 0.03)


def test_a_newer_chunk_replaces_the_older_one_when_it_starts():
    committed = CommittedSteps('displacement')
    committed.add(steps(*[0.01] * 8), START, START)
    committed.add(steps(*[0.02] * 8), START + 110 * MS, START)
    assert y_after(committed, START, START + 110 * MS) == pytest.approx(0.022)
    assert y_after(committed, START, START + 210 * MS) == pytest.approx(0.022 + 0.04)


def test_turns_are_applied_in_their_order():
    committed = CommittedSteps('displacement')
    quarter = np.pi / 2
    for index, axis in enumerate(np.eye(3)[:2]):
        chunk = Chunk(
            np.zeros((1, 3)), quaternion_from_axis_angle(axis[None] * quarter), np.zeros(1), 0.05
        )
        committed.add(chunk, START + index * PERIOD, START)
    rolled = committed.rolled(STATE, START, START + 2 * PERIOD)
    # y after x: Exp(y) Exp(x) is the turn by 120 degrees about (1, 1, -1)
    turn = turn_between(STATE.quaternion, rolled.quaternion)
    assert turn == pytest.approx(np.array([1, 1, -1]) / np.sqrt(3) * np.radians(120))


def test_a_hold_withdraws_the_steps_but_chunks_stay_as_late_as_they_were():
    committed = CommittedSteps('spring')
    assert committed.delay == 0
    committed.add(steps(0.01), START + 120 * MS, START)
    committed.clear()
    assert committed.rolled(STATE, START, START + 10 * PERIOD) is STATE
    assert committed.delay == 120 * MS


def test_the_expected_delay_is_the_median_of_the_last_ones():
    committed = CommittedSteps('spring')
    for delay in (100, 110, 2000, 90, 105):
        committed.add(steps(0.01), START + delay * MS, START)
    assert committed.delay == 105 * MS
    for _ in range(9):
        committed.add(steps(0.01), START + 40 * MS, START)
    assert committed.delay == 40 * MS


def test_old_chunks_are_forgotten():
    committed = CommittedSteps('displacement')
    for index in range(1000):
        committed.add(steps(0.01), START + index * PERIOD, START)
    assert y_after(committed, START, START + 1000 * PERIOD) == pytest.approx(64 * 0.01)
