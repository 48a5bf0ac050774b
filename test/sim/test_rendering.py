"""What is drawn, when, and with which OpenGL."""

import os
import subprocess
import sys
from ctypes.util import find_library

import mujoco
import numpy as np
import pytest

from lightvla_ros.contract.libero import CAMERAS
from lightvla_ros.errors import RenderingError, SimulationError
from lightvla_ros.sim.libero_env import LiberoEnv
from lightvla_ros.sim.rendering import choose_renderer

pytestmark = pytest.mark.sim
SIZE = 128
AWAY = (5.0, 5.0, -5.0)


@pytest.fixture(scope='module')
def env():
    built = LiberoEnv('libero_object', 0, camera_size=SIZE)
    yield built
    built.close()


def _put(env, body, position):
    """Put an object somewhere, without time passing."""
    sim = env.simulation.sim
    address = sim.model.jnt_qposadr[sim.model.body_jntadr[body]]
    sim.data.qpos[address : address + 3] = position
    sim.forward()


@pytest.mark.parametrize(('name', 'depth'), [('third_person', 0.6), ('wrist', 0.15)])
@pytest.mark.parametrize(('column', 'row'), [(90, 45), (30, 50)])
def test_object_appears_where_the_camera_looks(env, name, depth, column, row):
    """An object held before a camera changes the pixels that MuJoCo's geometry names.

    Its camera looks along -z, x to the right, y up; no mirror image of the frame agrees.
    """
    env.reset(0, 0)
    model, data = env.simulation.sim.model._model, env.simulation.sim.data._data
    camera = model.camera(CAMERAS[name]).id
    focal = SIZE / 2 / np.tan(np.deg2rad(model.cam_fovy[camera]) / 2)
    ray = np.array([(column - SIZE / 2) / focal, (SIZE / 2 - row) / focal, -1.0])
    place = data.cam_xpos[camera] + data.cam_xmat[camera].reshape(3, 3) @ (depth * ray)
    body = env.simulation.obj_body_id['alphabet_soup_1']

    _put(env, body, AWAY)
    without = env.render()[name].astype(int)
    _put(env, body, place)
    changed = np.abs(env.render()[name] - without).sum(axis=-1) > 60

    rows, columns = np.nonzero(changed)
    assert len(rows) > 100
    assert abs(columns.mean() - column) < 12
    assert abs(rows.mean() - row) < 12


def test_only_render_draws(env, monkeypatch):
    drawn = []
    draw = mujoco.mjr_render
    monkeypatch.setattr(mujoco, 'mjr_render', lambda *a, **k: drawn.append(1) or draw(*a, **k))
    env.reset(0, 0)
    env.step(np.zeros(7))
    env.state()
    assert drawn == []
    env.render()
    assert len(drawn) == len(CAMERAS)


def test_rendering_without_cameras_says_so():
    env = LiberoEnv('libero_object', 0, cameras=False)
    with pytest.raises(SimulationError, match='make it with cameras=True'):
        env.render()
    env.close()


def test_the_present_mujoco_gl_overrides_what_a_parent_found(monkeypatch):
    monkeypatch.setenv('MUJOCO_GL', 'EGL')
    monkeypatch.setenv('LIGHTVLA_RENDERER', 'osmesa (of a parent)')
    monkeypatch.setenv('PYOPENGL_PLATFORM', 'egl')  # set by what is tested, so to be restored
    try:
        renderer = choose_renderer()
    except RenderingError:
        pytest.skip('no EGL here')
    assert renderer.startswith('egl (')


@pytest.mark.skipif(find_library('OSMesa') is None, reason='no OSMesa here')
def test_osmesa_serves_where_egl_does_not(tmp_path):
    """Also when the first environment has no cameras: robosuite loads OpenGL once, at import."""
    environment = {k: v for k, v in os.environ.items() if k not in _RENDERER_VARIABLES}
    environment['__EGL_VENDOR_LIBRARY_DIRS'] = str(tmp_path)  # EGL finds no driver there
    result = subprocess.run(
        [sys.executable, '-c', _FIRST_WITHOUT_THEN_WITH_CAMERAS],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith('none osmesa (')


_RENDERER_VARIABLES = ('MUJOCO_GL', 'PYOPENGL_PLATFORM', 'LIGHTVLA_RENDERER')
_FIRST_WITHOUT_THEN_WITH_CAMERAS = """
from lightvla_ros.sim.libero_env import LiberoEnv
for cameras in (False, True):
    env = LiberoEnv('libero_object', 0, camera_size=64, cameras=cameras)
    print(env.renderer, end=' ')
    if cameras:
        env.reset(0, 0)
        assert env.render()['wrist'].any()
    env.close()
"""
