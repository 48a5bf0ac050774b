"""A policy node in a real ROS graph, with a robot's cameras and state in the test's hands."""

import itertools
from contextlib import contextmanager

import numpy as np
from fake_engine import FakeEngine
from geometry_msgs.msg import PoseStamped
from lightvla_ros.msg import ActionChunk, VlaStatus
from rcl_interfaces.msg import Log
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import Image, JointState
from spun_nodes import SpunNodes
from std_msgs.msg import String

from lightvla_ros.contract import load_manifest
from lightvla_ros.nodes.conversions import (
    gripper_to_message,
    image_to_message,
    pose_to_message,
    time_message,
)
from lightvla_ros.nodes.policy_node import PolicyNode
from lightvla_ros.policy.policy import Policy
from lightvla_ros.policy.state import RobotState
from lightvla_ros.runtime.reasons import kind

CAMERAS = ('third_person', 'wrist')
PERIOD = 0.05
_names = itertools.count()


def changing_pictures():
    """Yield uint8 [96, 96, 3], no two alike: a real camera's noise never repeats a picture."""
    random = np.random.default_rng(0)
    while True:
        yield random.integers(0, 256, (96, 96, 3), np.uint8)


class Robot(Node):
    """What stands around a policy: sensors, a user, and something that listens."""

    def __init__(self, namespace, context=None):
        super().__init__('robot', namespace=namespace, context=context)
        self.chunks: list[ActionChunk] = []
        self.statuses: list[VlaStatus] = []
        self.logs: list[str] = []
        self.sent = 0
        self.cameras = set(CAMERAS)
        self.states = True
        self.skew_ns = 0
        self.stamp = lambda: self.get_clock().now().nanoseconds
        self.pictures = changing_pictures()
        self.alter = lambda message: None
        self.alter_state = lambda message: None
        self.image_publishers = {
            name: self.create_publisher(Image, f'{name}/image', 1) for name in CAMERAS
        }
        self.pose_publisher = self.create_publisher(PoseStamped, 'ee_pose', 1)
        self.gripper_publisher = self.create_publisher(JointState, 'gripper_state', 1)
        self.instruction_publisher = self.create_publisher(String, 'instruction', 10)
        self.clock_publisher = self.create_publisher(ClockMessage, '/clock', 10)
        self.create_subscription(ActionChunk, 'lightvla/action_chunk', self.chunks.append, 10)
        latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.create_subscription(VlaStatus, 'lightvla/status', self.statuses.append, latched)
        self.create_subscription(Log, '/rosout', lambda log: self.logs.append(log.msg), 100)
        self.feeding = False
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(PERIOD, lambda: self.feed() if self.feeding else None, clock=steady)

    def feed(self):
        """Publish one observation."""
        stamp = self.stamp()
        for name in sorted(self.cameras):
            own = stamp - (self.skew_ns if name == 'wrist' else 0)
            message = image_to_message(next(self.pictures), own, f'{name}_optical')
            if name == 'wrist':
                self.alter(message)
            self.image_publishers[name].publish(message)
            self.sent += 1
        if self.states:
            self.feed_state(stamp)

    def feed_state(self, stamp=None):
        """Publish what the robot measures of itself, by default now."""
        stamp = stamp or self.stamp()
        state = RobotState(np.zeros(3), np.array([1.0, 0, 0, 0]), np.array([0.04, -0.04]))
        pose = pose_to_message(state, stamp, 'panda_link0')
        gripper = gripper_to_message(state, stamp)
        for message, publisher in (
            (pose, self.pose_publisher),
            (gripper, self.gripper_publisher),
        ):
            self.alter_state(message)
            publisher.publish(message)

    def say(self, text):
        self.instruction_publisher.publish(String(data=text))

    def set_time(self, seconds):
        self.clock_publisher.publish(ClockMessage(clock=time_message(round(seconds * 1e9))))

    @property
    def state(self):
        """State and kind of reason (``code:subject``) of the newest status."""
        newest = self.statuses[-1] if self.statuses else None
        return (newest.state, kind(newest.reason)) if newest else None

    def moves(self):
        """Chunks with steps."""
        return [chunk for chunk in self.chunks if chunk.steps]

    def holds(self):
        """Chunks without steps."""
        return [chunk for chunk in self.chunks if not chunk.steps]

    def hold_kinds(self):
        """What kind of reason (``code:subject``) each hold gave."""
        return [kind(chunk.reason) for chunk in self.holds()]


class Rig(SpunNodes):
    """The node under test, the robot, and a thread that spins each."""

    def __init__(self, policy_dir, parameters, load):
        self.namespace = f'/rig{next(_names)}'
        overrides = [Parameter(k, value=v) for k, v in {'policy': str(policy_dir)}.items()]
        overrides += [Parameter(k, value=v) for k, v in parameters.items()]
        self.engine = FakeEngine()
        self.node = PolicyNode(
            namespace=self.namespace, parameter_overrides=overrides, load=load or self._load_fake
        )
        self.robot = Robot(self.namespace)
        self.spin(self.robot, self.node)

    def _load_fake(self, folder, name, **_):
        return Policy(folder, load_manifest(folder), self.engine)

    def seen(self):
        robot = self.robot
        return (
            f'state {robot.state}, {len(robot.moves())} chunks, {len(robot.holds())} holds, '
            f'logs {robot.logs[-5:]}'
        )

    def until_state(self, state, reason=''):
        """Wait for a state; where nothing may move, wait for the hold that says so, too.

        Status and chunks are two topics: a status may overtake the chunks that were sent before it.
        """
        robot = self.robot

        def arrived():
            still = state == VlaStatus.RUNNING or not robot.chunks or not robot.chunks[-1].steps
            return robot.state == (state, reason) and still

        self.until(arrived, f'state {state} {reason}')

    def matched(self):
        """Wait until both sides know each other's topics."""
        robot = self.robot
        publishers = [robot.image_publishers[name] for name in robot.cameras]
        publishers.append(robot.instruction_publisher)
        self.until(
            lambda: (
                all(p.get_subscription_count() for p in publishers)
                and self.node.count_subscribers(f'{self.namespace}/lightvla/action_chunk')
                and robot.statuses
            ),
            'discovery',
        )

    def matched_user(self):
        """Wait until the node's log reaches the robot."""
        self.until(lambda: self.robot.count_publishers('/rosout') >= 2, 'rosout')

    def run(self, instruction='pick up the milk'):
        """Feed sensors, give an instruction, and wait for the first chunk."""
        self.matched()
        self.robot.feeding = True
        self.robot.say(instruction)
        self.until(self.robot.moves, 'the first chunk')

    def settle(self):
        """Let everything sent so far arrive: the diagnostics' heartbeat comes after it."""
        count = len(self.robot.statuses)
        self.until(lambda: len(self.robot.statuses) >= count + 2, 'two more statuses')

    def close(self):
        self.engine.released.set()
        self.stop_spinning()
        self.node.shut_down()
        self.node.destroy_node()
        self.robot.destroy_node()


@contextmanager
def rig(policy_dir, autostart=True, load=None, **parameters):
    """Build a rig with a fake engine, configured and active unless ``autostart`` is false."""
    built = Rig(policy_dir, parameters, load)
    try:
        if autostart:
            built.node.autostart()
        yield built
    finally:
        built.close()
