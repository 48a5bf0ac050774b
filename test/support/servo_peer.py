"""MoveIt Servo in a test's hands: an arm that follows its topics; the test says the status."""

import numpy as np
from executor_rig import TICK, Arm
from geometry_msgs.msg import PoseStamped, TwistStamped
from moveit_msgs.msg import ServoStatus
from moveit_msgs.srv import ServoCommandType

from lightvla_ros.nodes.conversions import pose_from_message, stamp_ns
from lightvla_ros.policy.poses import Pose, difference, moved, shortened

FRESH = 100_000_000  # ns; Servo's incoming_command_timeout
SPEED = 0.4  # m/s, its scale


class ServoPeer(Arm):
    """An arm behind Servo.

    :ivar code: The status that it sends.
    :ivar telling: Whether it sends one at all.
    :ivar accepts: Whether it accepts a command type.
    :ivar kinds: The command types that were asked for.
    """

    def __init__(self, namespace):
        super().__init__(namespace)
        self.destroy_subscription(self.controller)
        self.code = 0
        self.telling = self.accepts = True
        self.kinds = []
        self.command = None
        for kind, topic in ((TwistStamped, 'delta_twist_cmds'), (PoseStamped, 'pose_target_cmds')):
            self.create_subscription(kind, f'servo_node/{topic}', self._on_command, 10)
        self.status_publisher = self.create_publisher(ServoStatus, 'servo_node/status', 10)
        self.switch = self.create_service(
            ServoCommandType, 'servo_node/switch_command_type', self._on_switch
        )

    def speeds(self, newest=None):
        """Speed and angular speed of the newest twists [N, 2]."""
        twists = [message.twist for message in self.targets[-(newest or len(self.targets)) :]]
        parts = [(twist.linear, twist.angular) for twist in twists]
        return np.array([[np.hypot(np.hypot(v.x, v.y), v.z) for v in pair] for pair in parts])

    def step(self):
        """Follow the newest command for one tick, and report."""
        command = self.command
        fresh = command is not None and self.stamp() - stamp_ns(command.header.stamp) < FRESH
        if fresh and self.kinds and self.code == 0:
            self.pose = self._next(command)
        if self.telling:
            self.status_publisher.publish(ServoStatus(code=self.code))
        super().step()

    def _next(self, command):
        if isinstance(command, TwistStamped):
            v, w = command.twist.linear, command.twist.angular
            return moved(
                self.pose, TICK * np.array([v.x, v.y, v.z]), TICK * np.array([w.x, w.y, w.z])
            )
        state = pose_from_message(command)
        shift, turn = difference(self.pose, Pose(state.position, state.quaternion))
        return moved(self.pose, shortened(shift, SPEED * TICK), turn)

    def _on_command(self, message):
        self.targets.append(message)
        self.command = message

    def _on_switch(self, request, response):
        self.kinds.append(request.command_type)
        response.success = self.accepts
        return response
