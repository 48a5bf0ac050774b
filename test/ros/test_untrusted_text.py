"""Text that strangers send, of any length, in logs and reasons: short and on one line."""

from types import SimpleNamespace

import pytest
from geometry_msgs.msg import PoseStamped, Transform
from lightvla_ros.msg import ActionChunk, VlaStatus
from rig import rig
from sensor_msgs.msg import Image, JointState

from lightvla_ros.errors import ImageError
from lightvla_ros.nodes.bridge_modes import executable
from lightvla_ros.nodes.conversions import InputError, MessageError, picture_from_message
from lightvla_ros.nodes.policy_parameters import POLICY_PARAMETERS
from lightvla_ros.nodes.state_reader import StateReader

LONG = '\x1b[31m' + 'x\n' * 1_500_000


def _encoding():
    picture_from_message(Image(height=1, width=1, step=3, data=bytes(3), encoding=LONG))


def _joints():
    joints = ['panda_finger_joint1', 'panda_finger_joint2']
    values = SimpleNamespace(finger_joints=joints, finger_reach=0.04)
    StateReader(None, values).read(JointState(name=[LONG] * 1000, position=[0.04] * 1000))


def _frame_of_a_chunk():
    chunk = ActionChunk(schema_version=ActionChunk.SCHEMA_VERSION, gripper=[0.0])
    chunk.period.nanosec = 50_000_000
    chunk.header.frame_id = LONG
    chunk.steps.append(Transform())
    executable(chunk, 'world')


@pytest.mark.parametrize('refuse', [_encoding, _joints, _frame_of_a_chunk])
def test_what_is_refused_is_named_in_a_short_line(refuse):
    with pytest.raises((ImageError, MessageError, InputError)) as caught:
        refuse()
    text = str(caught.value)
    assert len(text) < 400
    assert text.isprintable()


def test_parameter_of_any_length_is_named_in_a_short_line():
    row = next(row for row in POLICY_PARAMETERS.rows if row.choices)
    assert len(row.fault(LONG)) < 300
    assert row.fault(LONG).isprintable()


def test_a_frame_id_of_3_megabytes_is_cut_in_the_log(bundled_policy):
    with rig(bundled_policy) as r:
        r.matched_user()
        r.run()
        r.robot.states = False
        pose = PoseStamped()
        pose.header.frame_id = LONG

        def logged():
            r.robot.pose_publisher.publish(pose)
            return [line for line in r.robot.logs if 'base_frame' in line]

        r.until(logged, 'the log')
        line = logged()[0]
        assert len(line) < 400
        assert line.isprintable()
        r.until_state(VlaStatus.HOLDING, 'bad_frame:ee_pose')
