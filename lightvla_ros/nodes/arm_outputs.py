"""The controllers of the arm that the chunk executor commands, each behind the same few methods.

What they demand was read in their sources (crisp_controllers 8093548, moveit2 8fcb5d232):

- **crisp_controllers** follows the newest pose on ``target_pose`` for ever, whatever its frame and
  stamp, and ignores all of them while the topic has more than one publisher.
- **MoveIt Servo** drops commands until its command type was chosen by a service, halts when a
  command is older than 0.1 s, and refuses another frame than its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from geometry_msgs.msg import PoseStamped, Twist, TwistStamped
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from rclpy.task import Future

from lightvla_ros.nodes.conversions import fill_pose, time_message
from lightvla_ros.nodes.lifecycle import TransitionError
from lightvla_ros.nodes.optional_interfaces import interfaces
from lightvla_ros.nodes.qos import ORDER_QOS, wait_until_received
from lightvla_ros.nodes.topic_graph import Topic
from lightvla_ros.policy.poses import Pose, difference, shortened
from lightvla_ros.runtime.reasons import reason
from lightvla_ros.runtime.safety_filter import Command, Mode

NEWEST = QoSProfile(depth=1)  # reliable, as the controllers subscribe
STATUS_SILENCE = 0.5  # s without a status after which Servo counts as gone
TWIST, POSE = 1, 2  # of moveit_msgs/srv/ServoCommandType
# Of moveit_msgs/msg/ServoStatus: the arm does what was sent, perhaps slowed down. With -1 Servo
# does not accept the commands; what a code means that is not known here cannot be known.
MOVING = 0, 1, 3, 4
# also of ServoStatus: the arm does not do what was sent
HALTED = {2: 'halted for a singularity', 5: 'halted for a collision', 6: 'at a joint bound'}


class CrispOutput:
    """Publishes the commanded pose for crisp_controllers.

    :param node: Its lifecycle decides when messages leave.
    :param values: The executor's parameters.
    :param halt: Called with the reason when the controller has halted.
    """

    relative = 'target_pose'
    kind: type = PoseStamped

    def __init__(
        self, node: LifecycleNode, values: SimpleNamespace, halt: Callable[[str], None]
    ) -> None:
        self._node = node
        self._values = values
        self._halt = halt
        self._publisher = node.create_lifecycle_publisher(self.kind, self.relative, NEWEST)
        # one for all commands: to make a message takes as long as to fill it
        self._message = self.kind()
        self._message.header.frame_id = values.base_frame

    @property
    def topic(self) -> Topic:
        """The topic on which only this node may publish."""
        return Topic.of(self._node, self.relative, self.relative, self.relative, self.kind)

    def fault(self) -> str:
        """Return why the controller cannot be commanded now; empty when it can. Call at 10 Hz."""
        if self._node.count_subscribers(self.topic.name):
            return ''
        return reason('controller_missing', '', f'no node subscribes to {self.topic.name}')

    def send(self, command: Command, measured: Pose, stamp: int) -> None:
        """Publish a command.

        :param command: Of the safety filter, with a pose.
        :param measured: The measured pose to which it belongs.
        :param stamp: Now [ns, ROS time].
        """
        fill_pose(self._message, *command.pose, stamp)
        self._publisher.publish(self._message)

    def destroy(self) -> None:
        """Remove the publisher, once the last command has been received."""
        wait_until_received(self._publisher)
        self._node.destroy_lifecycle_publisher(self._publisher)


class ServoPoseOutput(CrispOutput):
    """Publishes the commanded pose for MoveIt Servo, and sets Servo's command type.

    :raises TransitionError: When moveit_msgs is not installed.
    """

    relative = 'servo_node/pose_target_cmds'
    command_type = POSE

    def __init__(
        self, node: LifecycleNode, values: SimpleNamespace, halt: Callable[[str], None]
    ) -> None:
        user = values.controller
        status_type = interfaces('moveit_msgs.msg', user, TransitionError).ServoStatus
        services = interfaces('moveit_msgs.srv', user, TransitionError)
        self._service_type = services.ServoCommandType
        super().__init__(node, values, halt)
        self._client = node.create_client(self._service_type, 'servo_node/switch_command_type')
        self._request: Future | None = None
        self._status = 0
        self._heard = time.monotonic()
        self._subscription = node.create_subscription(
            status_type, 'servo_node/status', self._on_status, ORDER_QOS
        )

    def fault(self) -> str:
        """Return why Servo cannot be commanded now; ask for the command type when it is new."""
        missing = super().fault()
        if not missing and not self._client.service_is_ready():
            missing = reason('controller_missing', '', f'no service {self._client.srv_name}')
        silent = time.monotonic() - self._heard
        if not missing and silent > STATUS_SILENCE:
            missing = reason('controller_missing', '', f'Servo sent no status for {silent:.1f} s')
        if missing:
            self._forget_request()
            return missing
        if self._request is None:
            wanted = self._service_type.Request(command_type=self.command_type)
            self._request = self._client.call_async(wanted)
        if not self._request.done():
            return reason('controller_not_ready', '', 'Servo has not set the command type yet')
        answer = self._request.result()
        if answer is None or not answer.success:
            self._forget_request()
            return reason('controller_not_ready', '', 'Servo refused the command type')
        if self._status not in MOVING:
            detail = f'Servo status {self._status}: look at frame and type'
            return reason('controller_refuses', '', detail)
        return ''

    def destroy(self) -> None:
        """Remove publisher, subscription and client."""
        self._forget_request()
        self._node.destroy_subscription(self._subscription)
        self._node.destroy_client(self._client)
        super().destroy()

    def _forget_request(self) -> None:
        if self._request is not None:
            self._client.remove_pending_request(self._request)
            self._request = None

    def _on_status(self, message: Any) -> None:
        self._heard = time.monotonic()
        self._status = message.code
        if message.code in HALTED:
            self._halt(f'Servo {HALTED[message.code]}')


class ServoTwistOutput(ServoPoseOutput):
    """Publishes twists for MoveIt Servo in ``speed_units``, about the end effector's origin.

    The speed is proportional to the distance between the commanded and the measured pose, as that
    of an arm on a spring is. It is shortened, in its direction, to the bounds of speed.
    """

    relative = 'servo_node/delta_twist_cmds'
    kind = TwistStamped
    command_type = TWIST

    def send(self, command: Command, measured: Pose, stamp: int) -> None:
        """Publish a twist in the base frame; zero while the arm is meant to hold."""
        message = self._message
        message.header.stamp = time_message(stamp)
        message.twist = Twist()
        if command.mode is Mode.MOVE:
            gain = self._values.twist_gain
            shift, turn = difference(measured, command.pose)
            linear = shortened(gain * shift, self._values.max_speed)
            angular = shortened(gain * turn, self._values.max_angular_speed)
            twist = message.twist
            twist.linear.x, twist.linear.y, twist.linear.z = linear.tolist()
            twist.angular.x, twist.angular.y, twist.angular.z = angular.tolist()
        self._publisher.publish(message)


OUTPUTS: dict[str, type[CrispOutput]] = {
    'crisp': CrispOutput,
    'servo_pose': ServoPoseOutput,
    'servo_twist': ServoTwistOutput,
}
