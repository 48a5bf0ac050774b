"""A doubtful input of the policy reaches the arm as a hold, through policy node and executor."""

import math
from contextlib import contextmanager

import pytest
from geometry_msgs.msg import PoseStamped
from lightvla_ros.msg import VlaStatus
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from rig import rig
from sensor_msgs.msg import Image
from spun_nodes import SpunNodes

from lightvla_ros.nodes.chunk_executor_node import ChunkExecutorNode
from lightvla_ros.runtime.reasons import kind

RUNNING, HOLDING = VlaStatus.RUNNING, VlaStatus.HOLDING


class Controlled(SpunNodes):
    """The executor of a rig's policy, and the controller that it commands."""

    def __init__(self, rig):
        self.targets, self.statuses = [], []
        self.node = ChunkExecutorNode(
            namespace=rig.namespace,
            parameter_overrides=[
                Parameter('enable_timeout', value=0.0),
                Parameter('box_min', value=[-0.5, -0.5, -0.5]),
                Parameter('box_max', value=[0.5, 0.5, 0.5]),
            ],
        )
        self.controller = Node('controller', namespace=rig.namespace)
        self.controller.create_subscription(
            PoseStamped, 'target_pose', self.targets.append, QoSProfile(depth=1)
        )
        latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.controller.create_subscription(
            VlaStatus, 'chunk_executor/status', self.statuses.append, latched
        )
        self.spin(self.node, self.controller)

    @property
    def state(self):
        newest = self.statuses[-1] if self.statuses else None
        return (newest.state, kind(newest.reason)) if newest else None

    def seen(self):
        return f'state {self.state}, {len(self.targets)} targets'

    def lead(self):
        """Return how far the newest target is from the measured pose, which is the origin [m]."""
        place = self.targets[-1].pose.position
        return math.hypot(place.x, place.y, place.z)

    def close(self):
        self.stop_spinning()
        self.node.shut_down()
        self.node.destroy_node()
        self.controller.destroy_node()


@contextmanager
def controlled(rig):
    arm = Controlled(rig)
    rig.robot.states = False  # with the images they would come too seldom for an arm
    steady = Clock(clock_type=ClockType.STEADY_TIME)
    rig.robot.create_timer(0.02, rig.robot.feed_state, clock=steady)
    try:
        arm.node.autostart()
        yield arm
    finally:
        arm.close()


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
    picture = next(r.robot.pictures).tobytes()
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
