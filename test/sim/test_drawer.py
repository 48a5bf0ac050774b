"""A bowl in a drawer: where fixtures stand, and from which side the expert grasps its rim."""

import numpy as np
import pytest
from expert_runs import solve

from lightvla_ros.collect.recorder import CollectPlan, start
from lightvla_ros.sim.expert.grasps import rim_grasp
from lightvla_ros.sim.libero_env import LiberoEnv

pytestmark = pytest.mark.sim

# points of a rim of 11 cm, a metre up
ANGLES = np.deg2rad(np.arange(0, 360))
RIM = np.stack([0.055 * np.cos(ANGLES), 0.055 * np.sin(ANGLES), np.ones(360)], axis=1)


@pytest.fixture(scope='module')
def env():
    env = LiberoEnv('libero_spatial', 4, camera_size=64)
    yield env
    env.close()


def places(env):
    """Where the bowl and the cabinet are [3], and the joint positions."""
    data, bodies = env.simulation.sim.data, env.simulation.obj_body_id
    bowl, cabinet = (data.body_xpos[bodies[n]] for n in ('akita_black_bowl_1', 'wooden_cabinet_1'))
    return bowl.copy(), cabinet.copy(), data.qpos.copy()


def test_a_layout_beside_fixtures_of_another_draw(env, monkeypatch):
    monkeypatch.setattr(env, 'settle', lambda: None)
    env.reset_layout(7)
    bowl, cabinet, joints = places(env)
    env.reset_layout(7, fixtures=8)
    same_bowl, other_cabinet, same_joints = places(env)
    np.testing.assert_array_equal(joints, same_joints)
    np.testing.assert_allclose(bowl, same_bowl)
    assert 0.001 < np.linalg.norm(cabinet - other_cabinet) < 0.03
    env.reset_layout(8)
    np.testing.assert_allclose(other_cabinet, places(env)[1])
    env.reset_layout(7, fixtures=7)
    np.testing.assert_array_equal(np.concatenate(places(env)), [*bowl, *cabinet, *joints])


def test_most_demonstrations_start_beside_fixtures_of_another_draw(env, monkeypatch, tmp_path):
    plan = CollectPlan(tmp_path, 1)
    drawn = []
    monkeypatch.setattr(env, 'reset_layout', lambda *seeds: drawn.append(seeds))
    for seed in range(200):
        start(env, seed, plan, np.random.default_rng(seed))
    assert [seed for seed, _ in drawn] == list(range(200))
    others = [fixtures for _, fixtures in drawn if fixtures is not None]
    assert 0.65 < len(others) / len(drawn) < 0.85
    assert len(set(others)) == len(others)


def test_layouts_are_drawn_beside_the_fixtures_of_saved_states(env, monkeypatch, tmp_path):
    monkeypatch.setattr(env, 'settle', lambda: None)
    env.reset(0, 0)
    cabinet = places(env)[1]
    plan = CollectPlan(tmp_path, 1, fixtures=0)
    beside = 0
    for seed in range(12):
        start(env, seed, plan, np.random.default_rng(seed))
        beside += np.allclose(cabinet, places(env)[1], atol=1e-9)
    assert 6 <= beside < 12


def test_in_a_drawer_it_is_always_the_same_side():
    """The roomiest side changes with millimetres."""
    for room in (0, 90, 200):  # where the wall is farther away than the fingers reach
        away = np.where(np.abs(ANGLES - np.deg2rad(room)) < 0.3, 0.15, 0.09)[:, None]
        wall = np.concatenate([away * RIM / 0.055 * [1, 1, 0] + [0, 0, z] for z in (0.97, 1.0)])
        for yaw in (0.4, -1.5):
            angle, grasp = rim_grasp(RIM, np.eye(3), np.zeros(3), wall, yaw)
            assert np.rad2deg(angle) == pytest.approx(120)
            assert np.linalg.norm(grasp[:2]) == pytest.approx(0.043, abs=1e-4)
            assert grasp[2] == pytest.approx(0.98)


def test_the_expert_takes_a_bowl_out_of_a_drawer_beside_whose_wall_it_lies(env):
    for seed, fixtures in ((600003, 50600003), (600008, 50600008)):
        env.reset_layout(seed, fixtures)
        assert solve(env)
