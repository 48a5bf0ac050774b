"""The arm's controllers as ROS sees them, around an arm in LIBERO: what the real ones take and do.

Callbacks only store. The simulation's thread calls :meth:`CrispTwin.act` before each tick.
"""

from __future__ import annotations

from collections.abc import Callable

from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from rclpy.qos import QoSProfile

from lightvla_ros.nodes.conversions import MessageError, pose_from_message, stamp_ns
from lightvla_ros.nodes.hand_twin import HandTwin
from lightvla_ros.policy.poses import Pose
from lightvla_ros.sim.crisp_arm import CrispArm
from lightvla_ros.sim.libero_env import LiberoEnv


class CrispTwin:
    """crisp_controllers' cartesian controller: ``target_pose`` in, torques out.

    As the real one, it takes the newest target whatever its frame and stamp, keeps it for ever,
    and ignores all targets while the topic has more than one publisher.

    :param on_command: Called when a command has come.
    :ivar arm: The arm of the running episode; None before the first one.
    :ivar answered: Stamp of the newest command [ns].
    :ivar taken: Number of targets that were followed in this episode.
    :ivar ignored: Number of targets that were not, because of a second publisher or as no pose.
    """

    def __init__(self, node: Node, on_command: Callable[[], None]) -> None:
        self.arm: CrispArm | None = None
        self.answered = 0
        self.taken = self.ignored = 0
        self._node = node
        self._on_command = on_command
        self._newest: PoseStamped | None = None
        self._hand = HandTwin(node)
        self._subscription = node.create_subscription(
            PoseStamped, 'target_pose', self._on_target, QoSProfile(depth=1)
        )

    def start(self, env: LiberoEnv) -> CrispArm:
        """Take over the arm of an environment that was reset; it stays where it is."""
        self._newest = None
        self.answered = self.taken = self.ignored = 0
        self.arm = CrispArm(env)
        return self.arm

    def act(self, now: float) -> None:
        """Follow the newest target, and carry out what the hand is told.

        Call it in the simulation's thread.

        :param now: Simulated time [s].
        """
        if self.arm is None:
            return
        self._hand.tick(self.arm.hand, now)
        message, self._newest = self._newest, None
        if message is None:
            return
        if self._node.count_publishers(self._subscription.topic_name) > 1:
            self.ignored += 1
            self._node.get_logger().warning(
                'target ignored: target_pose has more than one publisher',
                throttle_duration_sec=5.0,
            )
            return
        try:
            state = pose_from_message(message)
        except MessageError as error:
            self.ignored += 1
            self._node.get_logger().warning(f'target ignored: {error}', throttle_duration_sec=5.0)
            return
        self.arm.set_target(Pose(state.position, state.quaternion))
        self.taken += 1

    def _on_target(self, message: PoseStamped) -> None:
        self._newest = message
        self.answered = stamp_ns(message.header.stamp)
        self._on_command()
