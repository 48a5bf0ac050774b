"""Other colours and other light in LIBERO: what changes, and that nothing else does."""

import numpy as np
import pytest

from lightvla_ros.collect.collect import demonstrate
from lightvla_ros.collect.recorder import CollectPlan, start
from lightvla_ros.sim.libero_env import LiberoEnv
from lightvla_ros.sim.segmentation import Segmentation

pytestmark = pytest.mark.sim


@pytest.fixture(scope='module')
def env():
    env = LiberoEnv('libero_object', 1, camera_size=64)
    yield env
    env.close()


def test_looks_change_the_pictures_alone_and_end_with_the_next_reset(env):
    env.reset_layout(21)
    before, model = env.render(), env.simulation.sim.model._model
    joints, masses = env.simulation.sim.data.qpos.copy(), model.body_mass.copy()
    shown = Segmentation(env.simulation).render('agentview', 64)
    env.draw_looks(np.random.default_rng(3))
    after = env.render()
    assert all((before[camera] != after[camera]).mean() > 0.1 for camera in before)
    np.testing.assert_array_equal(env.simulation.sim.data.qpos, joints)
    np.testing.assert_array_equal(model.body_mass, masses)
    np.testing.assert_array_equal(Segmentation(env.simulation).render('agentview', 64), shown)
    env.reset_layout(21)
    again = env.render()
    for camera in before:
        np.testing.assert_array_equal(before[camera], again[camera])


def test_a_saved_state_is_never_coloured(env):
    env.reset(0, 0)
    before = env.render()
    env.draw_looks(np.random.default_rng(3))
    env.reset(0, 0)
    for camera, image in env.render().items():
        np.testing.assert_array_equal(before[camera], image)


def test_the_share_of_coloured_demonstrations(env, monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(env, 'reset_layout', lambda *_: None)
    monkeypatch.setattr(env, 'draw_looks', drawn.append)
    for share, least, most in ((0.0, 0, 0), (0.5, 40, 60), (1.0, 100, 100)):
        drawn.clear()
        for seed in range(100):
            rng = np.random.default_rng(seed)
            start(env, seed, CollectPlan(tmp_path, 1, looks=share), rng)
        assert least <= len(drawn) <= most


def test_a_demonstration_is_coloured_when_asked(env, tmp_path):
    plain, coloured = (
        demonstrate(env, 22, CollectPlan(tmp_path, 1, stride=8, camera_size=64, looks=looks))
        for looks in (0.0, 1.0)
    )
    assert plain.instruction == coloured.instruction
    assert (plain.images['wrist'][0] != coloured.images['wrist'][0]).any()
