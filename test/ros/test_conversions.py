"""Between messages and our own types."""

import numpy as np
import pytest
from lightvla_ros.msg import ActionChunk
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import JointState

from lightvla_ros.nodes.conversions import (
    FINGER_JOINTS,
    ChunkHeader,
    MessageError,
    chunk_from_message,
    chunk_to_message,
    duration_message,
    gripper_from_message,
    gripper_to_message,
    image_to_message,
    picture_from_message,
    pose_from_message,
    pose_to_message,
    stamp_ns,
    time_message,
)
from lightvla_ros.policy.actions import chunk_from_osc, osc_from_chunk
from lightvla_ros.policy.state import RobotState


def _message(actions):
    return chunk_to_message(
        chunk_from_osc(actions, 0.05),
        ChunkHeader(
            stamp=12_345_678_901,
            frame_id='panda_link0',
            child_frame_id='panda_hand_tcp',
            reference=ActionChunk.REFERENCE_MEASURED_POSE,
            valid_until=12_545_678_901,
            sequence=7,
            session_id='session',
            instruction='pick up the milk',
            clamped=True,
        ),
    )


def test_action_chunk_action_over_the_wire():
    actions = np.random.default_rng(0).uniform(-1, 1, (8, 7))
    actions[:, 6] = [-1, 1] * 4
    wire = serialize_message(_message(actions))
    back = osc_from_chunk(chunk_from_message(deserialize_message(wire, ActionChunk)))
    assert np.abs(back - actions).max() < 1e-12


def test_message_says_everything():
    message = _message(np.zeros((8, 7)))
    assert message.schema_version == ActionChunk.SCHEMA_VERSION == 1
    assert message.header.frame_id == 'panda_link0'
    assert message.child_frame_id == 'panda_hand_tcp'
    assert stamp_ns(message.header.stamp) == 12_345_678_901
    assert stamp_ns(message.period) == 50_000_000
    assert (message.sequence, message.clamped, message.first_step) == (7, True, 0)


def _spoil(**fields):
    def change(message):
        for name, value in fields.items():
            setattr(message, name, value)

    return change


def _nan(message):
    message.steps[0].translation.z = float('nan')


def _no_rotation(message):
    message.steps[2].rotation.w = 0.0


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        (_spoil(schema_version=2), 'schema version 2'),
        (_spoil(period=duration_message(0)), 'period of 0 ns'),
        (_spoil(gripper=[0.0] * 7), '8 steps but 7 gripper openings'),
        (_spoil(gripper=[1.5] * 8), 'outside 0 to 1'),
        (_spoil(gripper=[float('nan')] * 8), 'NaN or infinite'),
        (_nan, 'NaN or infinite'),
        (_no_rotation, 'not a unit quaternion'),
    ],
)
def test_chunks_that_must_not_be_executed(change, text):
    message = _message(np.zeros((8, 7)))
    change(message)
    with pytest.raises(MessageError, match=text):
        chunk_from_message(message)


def test_more_steps_than_the_message_may_hold():
    message = _message(np.zeros((64, 7)))
    assert len(chunk_from_message(message)) == 64
    # the setters refuse 65 in tests only (ROS_PYTHON_CHECK_FIELDS)
    message._steps = message.steps + message.steps[:1]
    with pytest.raises(MessageError, match='65 steps; at most 64'):
        chunk_from_message(message)


def test_negative_durations_and_whole_seconds():
    for nanoseconds in (-1, 0, 999_999_999, 10**9, -(10**9) - 1):
        assert stamp_ns(duration_message(nanoseconds)) == nanoseconds
    assert stamp_ns(time_message(2**31 * 10**9 - 1)) == 2**31 * 10**9 - 1


def test_image_round_trip():
    image = np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)
    message = image_to_message(image, 10**9, 'camera')
    assert (message.step, message.encoding) == (12, 'rgb8')
    np.testing.assert_array_equal(picture_from_message(message).decode(), image)


def test_pose_round_trip_keeps_the_sign_of_the_quaternion():
    position, quaternion = np.array([0.1, -0.2, 0.3]), np.array([0.0, 0.6, 0.0, -0.8])
    back = pose_from_message(pose_to_message(RobotState(position, quaternion), 10**9, 'world'))
    np.testing.assert_array_equal(back.position, position)
    np.testing.assert_array_equal(back.quaternion, quaternion)


@pytest.mark.parametrize('quaternion', [[0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, np.nan]])
def test_pose_without_a_rotation(quaternion):
    message = pose_to_message(RobotState(np.zeros(3), np.array(quaternion, float)), 10**9, 'world')
    with pytest.raises(MessageError, match='not a unit quaternion'):
        pose_from_message(message)


def test_fingers_are_both_positive_on_the_wire():
    """As a real hand's driver reports them; robosuite's second finger is negative."""
    message = gripper_to_message(RobotState(fingers=np.array([0.03, -0.02])), 10**9)
    assert list(message.position) == [0.03, 0.02]
    np.testing.assert_array_equal(gripper_from_message(message).fingers, [0.03, -0.02])


def test_fingers_are_taken_by_name():
    """Fault: of seven arm joints and two fingers, the first two arm joints were the fingers."""
    arm = {f'fr3_joint{index}': -1.0 - index for index in range(1, 8)}
    joints = {'fr3_finger_joint2': 0.02, **arm, 'fr3_finger_joint1': 0.03}
    message = JointState(name=list(joints), position=list(joints.values()))
    np.testing.assert_array_equal(gripper_from_message(message).fingers, [0.03, -0.02])
    message = JointState(name=['left', 'right'], position=[0.03, 0.02])
    np.testing.assert_array_equal(
        gripper_from_message(message, ['right', 'left']).fingers, [0.02, -0.03]
    )


FINGERS = FINGER_JOINTS[:2]


@pytest.mark.parametrize(
    ('names', 'positions', 'text'),
    [
        ([], [0.04, 0.04], '0 joint names for 2 positions'),
        (FINGERS, [0.04], '2 joint names for 1 positions'),
        (['panda_joint1', 'panda_joint2'], [0.0, 0.0], "not 'panda_joint1, panda_joint2'"),
        (['x' * 10**6] * 2, [0.0, 0.0], "xxx…'; finger_joints is panda_finger_joint1, "),
        (FINGERS[:1], [0.04], "not 'panda_finger_joint1'"),
        ([*FINGERS, FINGERS[0]], [0.04, 0.04, 0.0], 'one pair of finger_joints, once'),
        (FINGER_JOINTS, [0.04] * 4, 'one pair of finger_joints, once'),
        (FINGERS, [0.04, float('nan')], 'panda_finger_joint2 is nan m'),
        (FINGERS, [float('inf'), 0.04], 'panda_finger_joint1 is inf m'),
        (
            FINGERS,
            [40.0, 40.0],
            'panda_finger_joint1 is 40 m; a finger is 0 to 0.04 m from the middle (millimetres?)',
        ),
        (FINGERS, [0.04, 1e300], 'panda_finger_joint2 is 1e+300 m'),
        (FINGERS, [0.04, -0.04], 'from the middle (both fingers must be positive'),
        (FINGERS, [0.08, 0.08], 'the width between the fingers'),
    ],
)
def test_what_are_no_fingers(names, positions, text):
    """Fault: other joints, no names, millimetres, 1e300 and wrong signs all ran on."""
    message = JointState(name=list(names), position=list(positions))
    with pytest.raises(MessageError) as caught:
        gripper_from_message(message)
    assert text in str(caught.value)
    assert len(str(caught.value)) < 400
