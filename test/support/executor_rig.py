"""A chunk executor in a real ROS graph, with an arm that follows it as on a spring."""

import itertools
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from lightvla_ros.msg import ActionChunk, InferenceStats, VlaStatus
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from spun_nodes import SpunNodes
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from lightvla_ros.nodes.chunk_executor_node import ChunkExecutorNode
from lightvla_ros.nodes.conversions import (
    ChunkHeader,
    chunk_to_message,
    pose_from_message,
    pose_to_message,
    time_message,
)
from lightvla_ros.policy.actions import Chunk, hold
from lightvla_ros.policy.poses import Pose, difference, moved
from lightvla_ros.policy.state import RobotState
from lightvla_ros.runtime.reasons import kind

HOME = Pose(np.array([0.5, 0.0, 0.3]), np.array([1.0, 0.0, 0.0, 0.0]))
TICK = 0.01
ROOT = Path(__file__).resolve().parents[2]
SPRING = 6.1  # 1/s, as that of LIBERO's controller
_names = itertools.count()


class Arm(Node):
    """An arm with its controller, and a policy and an operator that the test plays."""

    def __init__(self, namespace):
        super().__init__('arm', namespace=namespace)
        self.pose = HOME
        self.target = None
        self.frame = 'panda_link0'
        self.following = self.reporting = self.enabling = True
        self.sequence = 0
        self.session = 'session'
        self.targets: list[PoseStamped] = []
        self.statuses: list[VlaStatus] = []
        self.stamp = lambda: self.get_clock().now().nanoseconds
        self.chunk_publisher = self.create_publisher(ActionChunk, 'lightvla/action_chunk', 1)
        self.pose_publisher = self.create_publisher(PoseStamped, 'ee_pose', 1)
        self.enable_publisher = self.create_publisher(Bool, 'enable', 1)
        self.stop_publisher = self.create_publisher(Bool, 'stop', 1)
        self.controller = self.create_subscription(PoseStamped, 'target_pose', self._on_target, 1)
        latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.create_subscription(VlaStatus, 'chunk_executor/status', self.statuses.append, latched)
        self.create_timer(TICK, self.step, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _on_target(self, message):
        self.targets.append(message)
        state = pose_from_message(message)
        self.target = Pose(state.position, state.quaternion)

    def step(self):
        """Move towards the target for one tick, and report."""
        if self.following and self.target is not None:
            shift, turn = difference(self.pose, self.target)
            self.pose = moved(self.pose, SPRING * TICK * shift, SPRING * TICK * turn)
        if self.reporting:
            state = RobotState(*self.pose)
            self.pose_publisher.publish(pose_to_message(state, self.stamp(), self.frame))
        if self.enabling:
            self.enable_publisher.publish(Bool(data=True))

    def send(self, **chunk):
        """Publish a chunk as :meth:`chunk` makes it."""
        message = self.chunk(**chunk)
        self.chunk_publisher.publish(message)
        return message

    def chunk(self, y=0.02, steps=8, gripper=1.0, why='', **header):
        """Make a chunk whose every step is ``y`` metres along y; without steps it is a hold."""
        chunk = hold(0.05)
        if steps:
            chunk = Chunk(
                np.tile([0.0, y, 0.0], (steps, 1)),
                np.tile([0.0, 0.0, 0.0, 1.0], (steps, 1)),
                np.full(steps, gripper),
                0.05,
            )
        now = self.stamp()
        fields = {
            'stamp': now,
            'valid_until': now + 200_000_000,
            'sequence': self.sequence,
            'session_id': self.session,
            'reference': ActionChunk.REFERENCE_MEASURED_POSE,
            'frame_id': 'panda_link0',
            'child_frame_id': 'panda_hand_tcp',
            'reason': why,
            'stats': InferenceStats(observation_stamp=time_message(now)),
        }
        self.sequence += 1
        return chunk_to_message(chunk, ChunkHeader(**fields | header))

    @property
    def state(self):
        """State and kind of reason (``code:subject``) of the newest status."""
        newest = self.statuses[-1] if self.statuses else None
        return (newest.state, kind(newest.reason)) if newest else None


class Rig(SpunNodes):
    """The executor under test, the arm, and a thread that spins each.

    :param process: Whether the executor runs in a process of its own, as `ros2 run` starts it.
    :param arm: Class of the arm.
    """

    def __init__(self, parameters, process=False, arm=Arm):
        self.namespace = f'/executor{next(_names)}'
        self.arm = arm(self.namespace)
        self.node = self.process = None
        nodes = [self.arm]
        if process:
            command = [sys.executable, str(ROOT / 'scripts' / 'chunk_executor_node'), '--ros-args']
            command += ['-r', f'__ns:={self.namespace}']
            for name, value in parameters.items():
                command += ['-p', f'{name}:={value}']
            self.process = subprocess.Popen(command)
        else:
            overrides = [Parameter(k, value=v) for k, v in parameters.items()]
            self.node = ChunkExecutorNode(namespace=self.namespace, parameter_overrides=overrides)
            nodes.append(self.node)
        self.spin(*nodes)

    def seen(self):
        counts = self.node and self.node.runner.counts
        return f'state {self.arm.state}, {len(self.arm.targets)} targets, {counts}'

    def until_state(self, state, why=''):
        self.until(lambda: self.arm.state == (state, why), f'state {state} {why}')

    def ready(self):
        """Wait until nothing is missing but a chunk."""
        self.until_state(VlaStatus.WAITING, 'no_target')

    def move(self, **chunk):
        """Send a chunk, and wait until the arm moves."""
        self.ready()
        place = self.arm.pose.position[1]
        self.arm.send(**chunk)
        self.until(lambda: abs(self.arm.pose.position[1] - place) > 0.003, 'motion')

    def rests(self, seconds=0.3, tolerance=1e-3):
        """Return whether the arm stays where it is, once its spring is at rest."""
        time.sleep(0.4)
        place = self.arm.pose.position.copy()
        time.sleep(seconds)
        return bool(np.abs(self.arm.pose.position - place).max() < tolerance)

    def reset(self):
        client = self.arm.create_client(Trigger, 'chunk_executor/reset')
        self.until(client.service_is_ready, 'reset')
        future = client.call_async(Trigger.Request())
        self.until(future.done, 'reset to answer')
        return future.result()

    def close(self):
        self.stop_spinning()
        if self.process:
            self.process.kill()
            self.process.wait()
        else:
            self.node.shut_down()
            self.node.destroy_node()
        self.arm.destroy_node()


def run_arm(namespace):
    """Be an arm with its controller, in a process of its own."""
    rclpy.init()
    arm = Arm(namespace)
    arm.enabling = False
    for others in (arm.chunk_publisher, arm.enable_publisher):
        arm.destroy_publisher(others)
    rclpy.spin(arm)


@contextmanager
def executor_rig(autostart=True, process=False, arm=Arm, **parameters):
    """Build a rig, configured and active unless ``autostart`` is false."""
    built = Rig(parameters, process, arm)
    try:
        if autostart and not process:
            built.node.autostart()
        yield built
    finally:
        built.close()
