"""Other colours and other light in LIBERO: what changes, and that nothing else does."""

import numpy as np
import pytest

from lightvla_ros.collect.collect import demonstrate
from lightvla_ros.collect.recorder import CollectPlan, start
from lightvla_ros.sim.libero_env import LiberoEnv
from lightvla_ros.sim.looks import repaint
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


def test_a_repainted_print_has_other_hues_and_fades_into_a_colour():
    red, grey, black = (200, 40, 40), (90, 90, 90), (0, 0, 0)
    pixels = np.array([red, grey, black], np.uint8)
    third = repaint(pixels, 1 / 3, np.zeros(3), 1.0).astype(int)
    np.testing.assert_allclose(third[0], (40, 200, 40), atol=4)
    np.testing.assert_array_equal(third[1:], [grey, black])
    half = repaint(pixels, 0.0, np.array([0.0, 0.0, 1.0]), 0.5).astype(int)
    np.testing.assert_allclose(half, [(100, 20, 148), (45, 45, 172), (0, 0, 128)], atol=2)


def test_prints_are_repainted_and_restored_in_the_renderer_too(env):
    env.reset_layout(21)
    model = env.simulation.sim.model._model
    before, prints = env.render(), model.tex_data.copy()
    for seed in range(40):
        env.draw_looks(np.random.default_rng(seed))
        if (model.tex_data != prints).any():
            break
        env.reset_layout(21)
    else:
        pytest.fail('no seed repaints a print')
    assert any((before[camera] != image).any() for camera, image in env.render().items())
    env.reset_layout(21)
    np.testing.assert_array_equal(model.tex_data, prints)
    for camera, image in env.render().items():
        np.testing.assert_array_equal(before[camera], image)


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
