"""``from lightvla_ros import ...``: what other programs may rely on."""

import subprocess
import sys

import numpy as np
import pytest

import lightvla_ros
from lightvla_ros import Chunk, LightVLAError, Observation, Policy, RobotState, load_manifest

PICTURE = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)


@pytest.fixture(scope='module')
def policy(bundled_policy):
    with Policy.load(str(bundled_policy)) as loaded:
        yield loaded


def test_all_that_is_promised_is_there():
    for name in lightvla_ros.__all__:
        assert getattr(lightvla_ros, name).__name__ == name
    assert set(lightvla_ros.__all__) == set(lightvla_ros._MODULES)
    with pytest.raises(AttributeError, match="no attribute 'Polcy'"):
        _ = lightvla_ros.Polcy


def test_importing_loads_no_engine():
    """Nor NumPy: messages of this package are imported by whoever records a bag."""
    code = (
        'import sys, lightvla_ros; '
        'from lightvla_ros import LightVLAError; '
        'heavy = {"numpy", "cv2", "onnxruntime", "torch", "rclpy"} & set(sys.modules); '
        'assert not heavy, heavy'
    )
    subprocess.run([sys.executable, '-c', code], check=True)


def test_a_policy_acts_on_its_example(policy):
    observation = Observation.example(policy.manifest)
    assert isinstance(observation.state, RobotState)
    chunk = policy.act(observation)
    assert isinstance(chunk, Chunk)
    assert len(chunk) == 8
    np.testing.assert_array_equal(chunk.translations, policy.infer(observation).chunk.translations)


def test_a_state_and_its_finished_vector_are_one_thing(policy):
    """Recordings hold the vector; the bits of both ways are the same."""
    from lightvla_ros.policy.state import state_vector

    observation = Observation.example(policy.manifest)
    vector = state_vector(policy.manifest.proprio, observation.state)
    recorded = Observation(observation.images, observation.instruction, vector)
    one, two = policy.infer(observation), policy.infer(recorded)
    np.testing.assert_array_equal(one.normalised, two.normalised)


@pytest.mark.parametrize(
    ('images', 'message'),
    [
        ({'wrist': PICTURE}, r"images of \['wrist'\]; the policy sees \['third_person', 'wrist'\]"),
        ({'third_person': PICTURE, 'wrist': PICTURE, 'left': PICTURE}, 'left'),
        ({'third_person': PICTURE, 'wrist': PICTURE / 255}, 'image of wrist: float64'),
    ],
)
def test_pictures_that_do_not_fit_are_named(policy, images, message):
    state = Observation.example(policy.manifest).state
    with pytest.raises(ValueError, match=message):
        policy.act(Observation(images, 'pick up the milk', state))


@pytest.mark.parametrize(
    ('state', 'message'),
    [
        (None, 'needs a state of 8 finite numbers, not None'),
        (RobotState(np.zeros(3), np.array([1.0, 0, 0, 0])), 'gripper_qpos needs 2'),
        (RobotState(np.zeros(3), None, np.zeros(2)), 'ee_axis_angle needs 4'),
        (np.zeros(7), 'needs a state of 8'),
    ],
)
def test_a_state_that_does_not_fit_is_named(policy, state, message):
    images = {'third_person': PICTURE, 'wrist': PICTURE.copy()}
    with pytest.raises(ValueError, match=message):
        policy.act(Observation(images, 'pick up the milk', state))


def test_parts_of_a_state_come_in_several_messages():
    pose = RobotState(np.array([1.0, 2, 3]), np.array([1.0, 0, 0, 0]))
    whole = pose.joined(RobotState(fingers=np.array([0.04, -0.04])))
    assert (whole.position, whole.quaternion) == (pose.position, pose.quaternion)
    assert whole.fingers is not None
    moved = whole.joined(RobotState(np.zeros(3)))
    np.testing.assert_array_equal(moved.position, np.zeros(3))
    assert moved.fingers is whole.fingers


def test_every_fault_has_one_base(tmp_path):
    with pytest.raises(LightVLAError, match='manifest.json'):
        load_manifest(tmp_path)
    with pytest.raises(LightVLAError, match='manifest.json'):
        Policy.load(tmp_path)
