"""The faults of issue 23: pictures and poses of LIBERO over real topics, each wrong in one way."""

import numpy as np
import pytest
import rclpy
from doctor_rig import doctor_rig, noisy

from lightvla_ros.contract.libero import CAMERAS
from lightvla_ros.nodes.conversions import gripper_to_message, pose_to_message
from lightvla_ros.policy.state import RobotState
from lightvla_ros.sim.libero_env import LiberoEnv

pytestmark = pytest.mark.sim
SCENES = {'libero_object': 4, 'libero_spatial': 3}  # tasks, from saved initial states
HOME = RobotState(np.array([0.307, 0.0, 0.487]), np.array([1.0, 0.0, 0.0, 0.0]))  # in fr3_link0


@pytest.fixture(scope='module', params=SCENES)
def scene(request):
    """Pictures, uint8 [128, 128, 3] by camera, and the state at the start of an episode."""
    env = LiberoEnv(request.param, SCENES[request.param], camera_size=128)
    env.reset(17, seed=0)
    found = env.render(), env.state()
    env.close()
    return found


@pytest.fixture(scope='module', autouse=True)
def _rclpy():
    own = not rclpy.ok()  # in a run of all tests, those of test/ros have started it
    if own:
        rclpy.init()
    yield
    if own:
        rclpy.shutdown()


def findings(bundled_policy, tmp_path, pictures, state, pose=None):
    """Publish the scene, and examine it."""
    with doctor_rig(bundled_policy, tmp_path / 'sheet.png') as rig:
        rig.robot.pictures = noisy(*(pictures[camera] for camera in CAMERAS))

        def alter(message):
            stamp, frame = message.header.stamp, message.header.frame_id
            if hasattr(message, 'pose'):
                message.pose = pose_to_message(pose or state, 0, frame).pose
            else:
                message.position = gripper_to_message(state, 0).position
            message.header.stamp = stamp

        rig.robot.alter_state = alter
        return rig.examine(hand='open')


def test_the_robot_of_the_training_passes(bundled_policy, tmp_path, scene):
    found = findings(bundled_policy, tmp_path, *scene)
    subjects = {'ee_position', 'ee_axis_angle', 'start position', 'start turn', 'gripper sense'}
    subjects |= {f'{camera} {what}' for camera in CAMERAS for what in ('view', 'exposure')}
    for subject in subjects:
        assert found[subject].level == 'pass', found[subject]


def test_swapped_cameras(bundled_policy, tmp_path, scene):
    pictures, state = scene
    swapped = {'third_person': pictures['wrist'], 'wrist': pictures['third_person']}
    found = findings(bundled_policy, tmp_path, swapped, state)
    for camera in CAMERAS:
        assert found[f'{camera} view'].level == 'fail'
        assert 'swapped?' in found[f'{camera} view'].text


def test_both_cameras_upside_down(bundled_policy, tmp_path, scene):
    pictures, state = scene
    turned = {name: image[::-1, ::-1] for name, image in pictures.items()}
    found = findings(bundled_policy, tmp_path, turned, state)
    for camera in CAMERAS:
        assert found[f'{camera} view'].level == 'fail'
        assert 'upside down' in found[f'{camera} view'].text


@pytest.mark.parametrize(('quarters', 'side'), [(-1, 'right'), (1, 'left')])
def test_a_wrist_camera_turned_by_90_degrees(bundled_policy, tmp_path, scene, quarters, side):
    pictures, state = scene
    turned = pictures | {'wrist': np.rot90(pictures['wrist'], quarters)}
    found = findings(bundled_policy, tmp_path, turned, state)
    assert found['wrist view'].level == 'fail'
    assert f'if it is turned by 90 degrees to the {side}' in found['wrist view'].text
    assert found['third_person view'].level == 'pass'


def test_the_pose_of_an_fr3_in_its_own_base_frame(bundled_policy, tmp_path, scene):
    pictures, state = scene
    found = findings(bundled_policy, tmp_path, pictures, state, HOME)
    assert found['ee_position'].level == 'fail'
    assert 'another base frame' in found['ee_position'].cure
    assert found['wrist view'].level == 'pass'
