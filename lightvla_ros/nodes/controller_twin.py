"""The arm's controllers as ROS sees them, around an arm in LIBERO: what the real ones take and do.

Callbacks only store. The simulation's thread calls :meth:`ControllerTwin.act` before each tick.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile
from std_srvs.srv import SetBool

from lightvla_ros.nodes.conversions import MessageError, pose_from_message, stamp_ns
from lightvla_ros.nodes.hand_twin import HandTwin
from lightvla_ros.nodes.optional_interfaces import interfaces
from lightvla_ros.nodes.parameters import ParameterError
from lightvla_ros.policy.poses import Pose
from lightvla_ros.sim.crisp_arm import CrispArm
from lightvla_ros.sim.libero_env import LiberoEnv
from lightvla_ros.sim.servo_arm import CommandType, ServoArm, ServoCommand, Status
from lightvla_ros.sim.torque_arm import TorqueArm

STATUS_PERIOD = 0.1  # s between two statuses of Servo while simulated time stands still


class ControllerTwin:
    """A controller of the arm, and the hand beside it.

    :param base_frame: Name of the simulator's world.
    :param on_command: Called when a command has come.
    :ivar arm: The arm of the running episode; None between two episodes.
    :ivar answered: Stamp of the newest command [ns].
    :ivar taken: Number of commands that were followed in this episode.
    :ivar ignored: Number of commands that were not.
    """

    def __init__(self, node: Node, base_frame: str, on_command: Callable[[], None]) -> None:
        self.arm: TorqueArm | None = None
        self.answered = 0
        self.taken = self.ignored = 0
        self._node = node
        self._base_frame = base_frame
        self._on_command = on_command
        self._newest: Any = None
        self._hand = HandTwin(node)

    def start(self, env: LiberoEnv) -> None:
        """Take over the arm of an environment that was reset; it stays where it is."""
        self._newest = None
        self.answered = self.taken = self.ignored = 0
        self.arm = self._new_arm(env)

    def end(self) -> None:
        """Let go of the arm, because its episode is over."""
        if self.arm is not None:
            self._hand.abandon(self.arm.hand)
        self.arm = None

    def act(self, now: float) -> None:
        """Follow the newest command, and carry out what the hand is told.

        Call it in the simulation's thread, every 10 ms of simulated time.

        :param now: Simulated time [s].
        """
        if self.arm is None:
            return
        self._hand.tick(self.arm.hand, now)
        newest, self._newest = self._newest, None
        if newest is not None:
            fault = self._take(newest)
            self.taken += not fault
            self.ignored += bool(fault)
            if fault:
                self._node.get_logger().warning(
                    f'command ignored: {fault}', throttle_duration_sec=5.0
                )

    def _new_arm(self, env: LiberoEnv) -> TorqueArm:
        raise NotImplementedError

    def _take(self, command: Any) -> str:
        """Follow a command; return why it is ignored, or nothing."""
        raise NotImplementedError

    def _store(self, command: Any, stamp: int) -> None:
        self._newest = command
        self.answered = stamp
        self._on_command()


class CrispTwin(ControllerTwin):
    """crisp_controllers' cartesian controller: ``target_pose`` in, torques out.

    As the real one, it takes the newest target whatever its frame and stamp, keeps it for ever,
    and ignores all targets while the topic has more than one publisher.
    """

    arm: CrispArm | None

    def __init__(self, node: Node, base_frame: str, on_command: Callable[[], None]) -> None:
        super().__init__(node, base_frame, on_command)
        self._subscription = node.create_subscription(
            PoseStamped,
            'target_pose',
            lambda message: self._store(message, stamp_ns(message.header.stamp)),
            QoSProfile(depth=1),
        )

    def _new_arm(self, env: LiberoEnv) -> CrispArm:
        return CrispArm(env)

    def _take(self, command: PoseStamped) -> str:
        if self._node.count_publishers(self._subscription.topic_name) > 1:
            return 'target_pose has more than one publisher'
        try:
            state = pose_from_message(command)
        except MessageError as error:
            return str(error)
        self.arm.set_target(Pose(state.position, state.quaternion))
        return ''


class ServoTwin(ControllerTwin):
    """MoveIt Servo's node: its topics, services and status, with simulated time as its clock.

    It runs on from episode to episode, so a command type is chosen once. While it is paused it
    sends no status, as the real one.

    :raises ParameterError: When moveit_msgs is not installed.
    """

    arm: ServoArm | None

    def __init__(self, node: Node, base_frame: str, on_command: Callable[[], None]) -> None:
        super().__init__(node, base_frame, on_command)
        user = 'controller servo'
        self._status_type = interfaces('moveit_msgs.msg', user, ParameterError).ServoStatus
        service = interfaces('moveit_msgs.srv', user, ParameterError).ServoCommandType
        self._kind: CommandType | None = None
        self._paused = False
        self._publisher = node.create_publisher(self._status_type, 'servo_node/status', 10)
        node.create_subscription(TwistStamped, 'servo_node/delta_twist_cmds', self._on_twist, 10)
        node.create_subscription(PoseStamped, 'servo_node/pose_target_cmds', self._on_pose, 10)
        node.create_service(service, 'servo_node/switch_command_type', self._on_switch)
        node.create_service(SetBool, 'servo_node/pause_servo', self._on_pause)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        node.create_timer(STATUS_PERIOD, self._tell, clock=steady)

    def act(self, now: float) -> None:
        """Take what has come, find the joint speeds for 10 ms, and send the status."""
        arm = self.arm
        if arm is None:
            return
        if arm.paused != self._paused:
            arm.pause(self._paused)
        if arm.kind != self._kind:
            arm.choose(self._kind)
        super().act(now)
        arm.servo(now)
        self._tell()

    def _new_arm(self, env: LiberoEnv) -> ServoArm:
        return ServoArm(env, self._base_frame)

    def _take(self, command: tuple[CommandType, ServoCommand]) -> str:
        if self.arm.take(*command):
            return ''
        return f'{command[0].name.lower()} was not chosen, or Servo is paused'

    def _tell(self) -> None:
        if not self._paused:
            arm = self.arm  # the simulation's thread may take it away
            status = Status.FINE if arm is None else arm.status
            self._publisher.publish(self._status_type(code=int(status), message=status.name))

    def _on_twist(self, message: TwistStamped) -> None:
        linear, angular = message.twist.linear, message.twist.angular
        value = [linear.x, linear.y, linear.z, angular.x, angular.y, angular.z]
        self._on_message(CommandType.TWIST, np.array(value), message)

    def _on_pose(self, message: PoseStamped) -> None:
        p, q = message.pose.position, message.pose.orientation
        value = Pose(np.array([p.x, p.y, p.z]), np.array([q.x, q.y, q.z, q.w]))
        self._on_message(CommandType.POSE, value, message)

    def _on_message(self, kind: CommandType, value: np.ndarray | Pose, message: Any) -> None:
        stamp = stamp_ns(message.header.stamp)
        command = ServoCommand(value, message.header.frame_id, stamp * 1e-9)
        self._store((kind, command), stamp)

    def _on_switch(self, request: Any, response: Any) -> Any:
        response.success = request.command_type in tuple(CommandType)
        if response.success:
            self._kind = CommandType(request.command_type)
        return response

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._paused = request.data
        response.success = True
        response.message = 'paused' if request.data else 'goes on'
        return response


TWINS: dict[str, type[ControllerTwin]] = {'crisp': CrispTwin, 'servo': ServoTwin}
