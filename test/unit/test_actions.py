"""What the seven numbers of a step mean."""

import numpy as np
import pytest

from lightvla_ros.contract import Action
from lightvla_ros.errors import PolicyOutputError
from lightvla_ros.policy.actions import (
    axis_angle_from_quaternion,
    chunk_from_osc,
    chunk_from_policy,
    limit_chunk,
    osc_from_chunk,
    quaternion_from_axis_angle,
    unnormalise,
)
from lightvla_ros.policy.policy import check_output
from lightvla_ros.runtime.chunk_schedule import starting

SPEC = Action(
    chunk_length=8,
    control_period=0.05,
    translation_scale=0.05,
    rotation_scale=0.5,
    q01=(-1.0,) * 6 + (0.0,),
    q99=(1.0,) * 6 + (1.0,),
    mask=(True,) * 6 + (False,),
    gripper_closed=0.0,
    gripper_open=1.0,
    reference='measured_pose',
    slice='training',
)


def test_osc_round_trip():
    actions = np.random.default_rng(0).uniform(-1, 1, (500, 7))
    actions[0] = 0
    actions[1, 3:6] = 1e-12
    back = osc_from_chunk(chunk_from_osc(actions, 0.05))
    assert np.abs(back - actions).max() < 1e-12


def test_one_unit_is_five_centimetres_and_half_a_radian():
    chunk = chunk_from_policy(np.array([[1, 0, 0, 0, 0, 1, 0]] * 8), SPEC)
    np.testing.assert_allclose(chunk.translations[0], [0.05, 0, 0], atol=1e-8)
    np.testing.assert_allclose(chunk.rotations[0], [0, 0, np.sin(0.25), np.cos(0.25)], atol=1e-8)


@pytest.mark.parametrize(('value', 'opening'), [(1.0, 1.0), (0.0, 0.0), (1.3, 1.0), (-0.2, 0.0)])
def test_gripper_of_the_policy_is_one_for_open(value, opening):
    action = np.array([[0, 0, 0, 0, 0, 0, value]] * 8)
    assert chunk_from_policy(action, SPEC).gripper[0] == opening


def test_gripper_of_osc_is_minus_one_for_open():
    assert chunk_from_osc([0, 0, 0, 0, 0, 0, -1], 0.05).gripper[0] == 1.0
    assert chunk_from_osc([0, 0, 0, 0, 0, 0, 1], 0.05).gripper[0] == 0.0


def test_unnormalise_by_hand():
    spec = Action(**{**vars(SPEC), 'q01': (-0.5,) * 7, 'q99': (1.5,) * 7})
    out = unnormalise(np.array([[-1, 1, 0, 0, 0, 0, 0.25]]), spec)
    np.testing.assert_allclose(out[0, [0, 1, 2, 6]], [-0.5, 1.5, 0.5, 0.25], atol=1e-7)


def test_quaternion_takes_the_short_way_round():
    turn = np.array([[0.0, 0.0, np.pi - 0.1]])
    quaternion = -quaternion_from_axis_angle(turn)  # the same rotation
    np.testing.assert_allclose(axis_angle_from_quaternion(quaternion), turn)


def test_limits_keep_the_direction():
    chunk = chunk_from_osc([[1, 1, 0, 0.4, 0.8, 0, 1]], 0.05)
    limited, clamped = limit_chunk(chunk, 0.05, 0.2)
    assert clamped
    assert np.linalg.norm(limited.translations[0]) == pytest.approx(0.05)
    assert limited.translations[0, 0] == limited.translations[0, 1]
    turn = axis_angle_from_quaternion(limited.rotations)[0]
    assert np.linalg.norm(turn) == pytest.approx(0.2)
    assert turn[1] / turn[0] == pytest.approx(2.0)
    same, clamped = limit_chunk(chunk, 0.1, 1.0)
    assert same is chunk
    assert not clamped


def test_step_far_over_the_limit_is_refused():
    with pytest.raises(PolicyOutputError, match='step 1 has a translation of 0.4 m'):
        limit_chunk(chunk_from_osc([[0] * 7, [8, 0, 0, 0, 0, 0, 0]], 0.05), 0.1, 1.0)


def test_output_must_be_finite_and_whole():
    check_output(np.zeros((8, 7)), 8)
    with pytest.raises(PolicyOutputError, match='shape'):
        check_output(np.zeros((7, 7)), 8)
    with pytest.raises(PolicyOutputError, match='NaN'):
        check_output(np.full((8, 7), np.nan), 8)


def test_cut_head_remembers_where_it_starts():
    chunk = chunk_from_osc(np.zeros((8, 7)), 0.05).without_head(3)
    assert len(chunk) == 5
    assert chunk.first_step == 3


def test_a_chunk_starts_from_its_publishing_or_from_its_images():
    chunk = chunk_from_osc(np.eye(8, 7), 0.05)
    period = 50_000_000
    for late, left in ((0, 8), (1, 7), (period, 7), (period + 1, 6), (8 * period, 0), (10**10, 0)):
        rest, start = starting(chunk, 'observation', 10**9, 10**9 + late)
        assert len(rest) == left
        assert rest.first_step == 8 - left
        assert start >= 10**9 + late or not left, 'a step that is past is left out'
        assert start == 10**9 + (8 - left) * period
    whole, start = starting(chunk, 'publish', 10**9, 2 * 10**9, 7)
    assert (len(whole), start) == (8, 2 * 10**9 + 7)
