"""The calibration files of LIBERO's camera, against the simulator."""

import mujoco
import numpy as np
import pytest

from lightvla_ros.contract.libero import CAMERAS
from lightvla_ros.files import resource
from lightvla_ros.policy.calibration import load_calibrations
from lightvla_ros.sim.libero_env import LiberoEnv

CORNERS = np.array([[x, y, z] for x in (-0.2, 0.1) for y in (-0.2, 0.2) for z in (0.1, 0.5)])


@pytest.mark.parametrize(
    ('suite', 'scene', 'ground'),
    [('libero_object', 'floor', 0.0), ('libero_goal', 'table', 0.9)],
)
def test_the_files_agree_with_the_simulator(suite, scene, ground):
    calibration = load_calibrations(resource(f'config/calibration/libero_{scene}.yaml'))
    env = LiberoEnv(suite, 0, cameras=False)
    try:
        model = env.simulation.sim.model._model
        camera = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, CAMERAS['third_person'])
        # MuJoCo's camera looks along -z, with y up
        turn = np.zeros(9)
        mujoco.mju_quat2Mat(turn, model.cam_quat[camera])
        points = CORNERS + [0, 0, ground]
        seen = (points - model.cam_pos[camera]) @ turn.reshape(3, 3)
        half = np.tan(np.radians(model.cam_fovy[camera]) / 2)
        right, up, back = seen.T
        wanted = np.stack([1 + right / -back / half, 1 - up / -back / half], axis=1) / 2
    finally:
        env.close()
    places = np.array(calibration['third_person'].places(points))
    assert places == pytest.approx(wanted, abs=1e-4)
