"""Real LIBERO: upright images, exact repetition, an expert that solves tasks."""

import numpy as np
import pytest

from lightvla_ros.contract import POINTING_DOWN
from lightvla_ros.errors import SimulationError
from lightvla_ros.policy.state import on_side_of
from lightvla_ros.sim.episode import EpisodeRunner, EpisodeSpec
from lightvla_ros.sim.libero_env import LiberoEnv
from lightvla_ros.sim.recording import (
    end_state,
    load_recording,
    record,
    recording_path,
    replay_direct,
)
from lightvla_ros.sim.rendering import choose_renderer, make_cheap

pytestmark = pytest.mark.sim


@pytest.fixture(scope='module')
def env():
    built = LiberoEnv('libero_object', 0, camera_size=128)
    yield built
    built.close()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('libero_subject', 0), "there is no suite 'libero_subject'; choose libero_spatial"),
        (('libero_object', 10), 'libero_object has tasks 0 to 9, not 10'),
        (('libero_object', -1), 'libero_object has tasks 0 to 9, not -1'),
    ],
)
def test_what_does_not_exist(arguments, message):
    with pytest.raises(SimulationError, match=message):
        LiberoEnv(*arguments, cameras=False)


def test_initial_state_that_does_not_exist(env):
    with pytest.raises(SimulationError, match='has initial states 0 to 49, not 50'):
        env.reset(50, 0)


def test_a_suite_of_libero_pro_asks_for_what_counts_there():
    """LIBERO's own sentence of this task still asks for the alphabet soup."""
    changed = LiberoEnv('libero_object_task', 0, cameras=False)
    try:
        changed.reset(0, 0)
        assert changed.instruction == 'pick the cream cheese and place it in the basket'
        assert changed.goal == [['in', 'cream_cheese_1', 'basket_1_contain_region']]
        assert changed.max_steps == 280
    finally:
        changed.close()


@pytest.mark.parametrize('action', [np.zeros(6), np.full(7, np.nan)])
def test_action_that_is_none(env, action):
    with pytest.raises(SimulationError, match='7 finite numbers'):
        env.step(action)


def test_renderer_is_chosen_and_named(env):
    assert env.renderer.split(' ')[0] in ('egl', 'osmesa')
    assert choose_renderer() == env.renderer


def test_unknown_back_end_is_refused(monkeypatch):
    from lightvla_ros.errors import RenderingError

    monkeypatch.delenv('LIGHTVLA_RENDERER', raising=False)
    monkeypatch.setenv('MUJOCO_GL', 'crayons')
    with pytest.raises(RenderingError, match='install libosmesa6'):
        choose_renderer()


def test_cheap_setting_changes_quality_alone():
    xml = '<mujoco><asset><material name="m" reflectance="0.5"/></asset><worldbody/></mujoco>'
    cheap = make_cheap(xml)
    assert 'offsamples="0"' in cheap
    assert 'reflectance' not in cheap
    assert 'material' in cheap


def test_images_are_upright_and_not_mirrored(env):
    """The red milk carton lies where the camera's geometry says, not at its mirror image."""
    env.reset(0, 0)
    image = env.render()['third_person']
    assert image.shape == (128, 128, 3)
    assert image.flags['C_CONTIGUOUS']
    model, data = env.simulation.sim.model._model, env.simulation.sim.data._data
    camera = model.camera('agentview').id
    body = env.simulation.obj_body_id['milk_1']
    x, y, z = data.cam_xmat[camera].reshape(3, 3).T @ (data.xpos[body] - data.cam_xpos[camera])
    focal = 64 / np.tan(np.deg2rad(model.cam_fovy[camera]) / 2)
    column, row = round(64 - focal * x / z), round(64 + focal * y / z)

    def redness(row, column):
        patch = image[row - 3 : row + 4, column - 2 : column + 3].astype(float)
        return (patch[..., 0] - patch[..., 1:].mean(axis=-1)).max()

    here = redness(row, column)
    assert here > 60
    assert redness(row, 127 - column) < here / 2, 'mirrored left to right'
    assert redness(127 - row, column) < here / 2, 'upside down'


def test_stepping_never_renders(env, monkeypatch):
    env.reset(0, 0)
    rendered = []
    sim = env.simulation.sim
    monkeypatch.setattr(sim, 'render', lambda *a, **k: rendered.append(a))
    for _ in range(3):
        env.step(np.zeros(7))
    assert rendered == []


def test_state_is_what_openvla_reads(env):
    env.reset(0, 0)
    state = env.state()
    seen = env.simulation._get_observations(force_update=True)
    np.testing.assert_array_equal(state.position, seen['robot0_eef_pos'])
    np.testing.assert_array_equal(state.quaternion, seen['robot0_eef_quat'])
    np.testing.assert_array_equal(state.fingers, seen['robot0_gripper_qpos'])
    # robosuite's own sign is the one that a manifest means by default: nothing is turned
    assert on_side_of(POINTING_DOWN, state.quaternion) is state.quaternion


@pytest.mark.parametrize(
    ('suite', 'task', 'steps'), [('libero_object', 0, 160), ('libero_spatial', 2, 130)]
)
def test_expert_solves_and_repeats_exactly(suite, task, steps, tmp_path):
    """Bit for bit, after another episode, and with rendering: else a replay proves nothing."""
    env = LiberoEnv(suite, task, camera_size=64)
    first = record(env, EpisodeSpec(suite, task, 0))
    assert first.success
    assert len(first.actions) < steps
    assert np.abs(first.actions).max() <= 1
    record(env, EpisodeSpec(suite, task, 1))
    again = replay_direct(env, first)
    np.testing.assert_array_equal(again.end_state, first.end_state)

    runner = EpisodeRunner(env, first.spec)
    for step, action in enumerate(first.actions):
        if step % 8 == 0:
            env.render()
        runner.step(action)
    np.testing.assert_array_equal(end_state(env), first.end_state)
    env.close()

    first.save(tmp_path)
    loaded = load_recording(recording_path(tmp_path, first.spec))
    assert loaded.spec == first.spec
    assert loaded.success
    np.testing.assert_array_equal(loaded.actions, first.actions)
    assert len(loaded.chunk_at(0)) == 8
    assert len(loaded.chunk_at(len(first.actions))) == 0


def test_episode_ends_at_the_limit_and_holds_with_the_last_gripper(env, monkeypatch):
    monkeypatch.setattr(env, 'max_steps', 3)
    runner = EpisodeRunner(env, EpisodeSpec('libero_object', 0, 0))
    assert not runner.step(np.array([0, 0, 0, 0, 0, 0, 1.0]))
    np.testing.assert_array_equal(runner.hold_action(), [0, 0, 0, 0, 0, 0, 1])
    assert not runner.step(runner.hold_action())
    assert runner.step(runner.hold_action())
    assert runner.step(runner.hold_action()), 'further steps do nothing'
    result = runner.result().as_dict()
    assert (result['steps'], result['success'], result['error']) == (3, False, '')
    assert (result['suite'], result['task'], result['init_state']) == ('libero_object', 0, 0)
    assert result['render_setting'] == 'cheap'
