"""The executor behind a policy node, with a controller that notes its targets."""

import math
from contextlib import contextmanager

from geometry_msgs.msg import PoseStamped
from lightvla_ros.msg import VlaStatus
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from spun_nodes import SpunNodes

from lightvla_ros.nodes.chunk_executor_node import ChunkExecutorNode
from lightvla_ros.runtime.reasons import kind


class Controlled(SpunNodes):
    """The executor of a rig's policy, and the controller that it commands."""

    def __init__(self, rig):
        self.targets, self.statuses = [], []
        self.node = ChunkExecutorNode(
            namespace=rig.namespace,
            parameter_overrides=[
                Parameter('enable_timeout', value=0.0),
                # Six nodes and two cameras in one process: a pose may come late for a moment. What
                # that leads to is tested elsewhere.
                Parameter('state_timeout', value=0.16),
                Parameter('repeat_window', value=0.0),
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
