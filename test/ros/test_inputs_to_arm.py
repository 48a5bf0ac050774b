"""A doubtful input of the policy reaches the arm as a hold, through policy node and executor."""

import math

import pytest
from controlled_arm import controlled
from geometry_msgs.msg import PoseStamped
from lightvla_ros.msg import VlaStatus
from rig import changing_pictures, rig
from sensor_msgs.msg import Image

RUNNING, HOLDING = VlaStatus.RUNNING, VlaStatus.HOLDING


def _altered(**fields):
    def set_fields(r):
        def alter(message):
            for name, value in fields.items():
                setattr(message, name, value)

        r.robot.alter = alter

    return set_fields


def _no_stamp(r):
    def alter(message):
        message.header.stamp.sec = message.header.stamp.nanosec = 0

    r.robot.alter = alter


def _frozen(r):
    picture = next(changing_pictures()).tobytes()  # the robot's own are made in another thread
    _altered(data=picture)(r)


def _state(change):
    def alter(message):
        if isinstance(message, PoseStamped):
            change(message)

    return lambda r: setattr(r.robot, 'alter_state', alter)


def _second_camera(r):
    r.robot.create_publisher(Image, 'wrist/image', 1)


# How an input goes bad, and what the executor says
FAULTS = {
    'camera_stops': (lambda r: r.robot.cameras.remove('wrist'), 'camera_stale:wrist'),
    'encoding': (_altered(encoding='yuv422'), 'bad_encoding:wrist'),
    'short_data': (_altered(data=b'\x00' * 100), 'bad_data:wrist'),
    'no_stamp': (_no_stamp, 'bad_stamp:wrist'),
    'frozen': (_frozen, 'camera_frozen:wrist'),
    'second_camera': (_second_camera, 'two_publishers:wrist'),
    'stop_word': (lambda r: r.robot.say('stop'), 'paused'),
    'nan_pose': (
        _state(lambda pose: setattr(pose.pose.position, 'x', math.nan)),
        'bad_state:ee_pose',
    ),
    'pose_in_another_frame': (
        _state(lambda pose: setattr(pose.header, 'frame_id', 'camera')),
        'bad_frame:ee_pose',
    ),
}


@pytest.mark.parametrize('name', FAULTS)
def test_a_bad_input_of_the_policy_holds_the_arm(bundled_policy, name):
    spoil, why = FAULTS[name]
    with rig(bundled_policy) as r, controlled(r) as arm:
        r.run()
        arm.until(lambda: arm.state == (RUNNING, '') and arm.lead() > 1e-4, 'motion')
        spoil(r)
        arm.until(lambda: arm.state == (HOLDING, why), why)
        r.settle()
        arm.until(lambda: arm.state == (HOLDING, why), why)
        assert arm.lead() < 1e-9, 'a spring at rest pulls nowhere'
