"""A LIBERO bridge in a real ROS graph, with the policy's side of it in the test's hands."""

import json
import threading
import time
from contextlib import contextmanager

import mujoco
import numpy as np
from geometry_msgs.msg import PoseStamped
from lightvla_ros.msg import ActionChunk, InferenceStats
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from lightvla_ros.contract.libero import PERIOD
from lightvla_ros.nodes.conversions import ChunkHeader, chunk_to_message, stamp_ns, time_message
from lightvla_ros.nodes.libero_bridge_node import LiberoBridge
from lightvla_ros.nodes.spin import spin
from lightvla_ros.policy.actions import chunk_from_osc

NAMESPACE = '/bridge_rig'
LATCHED = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def chunk(stamp, actions, valid_until=None, observation=None):
    """Build a chunk of OSC_POSE actions [N, 7]; none of them is a hold."""
    return chunk_to_message(
        chunk_from_osc(np.asarray(actions), 0.05),
        ChunkHeader(
            stamp=stamp,
            frame_id='world',
            child_frame_id='panda_hand_tcp',
            reference=ActionChunk.REFERENCE_MEASURED_POSE,
            valid_until=stamp + PERIOD if valid_until is None else valid_until,
            sequence=0,
            session_id='test',
            reason='' if len(actions) else 'the_test_says_so',
            stats=InferenceStats(
                observation_stamp=time_message(stamp if observation is None else observation)
            ),
        ),
    )


class Peer(Node):
    """Stands in the policy's place and writes down all that comes."""

    def __init__(self, **options):
        super().__init__('peer', **options)
        self.episodes, self.results, self.times = [], [], []
        self.stamps = {name: [] for name in ('third_person', 'wrist', 'pose', 'gripper')}
        self.images, self.poses = [], []
        self.create_subscription(Clock, '/clock', self._on_clock, 1000)
        for name in ('third_person', 'wrist'):
            self.create_subscription(
                Image, f'{name}/image', lambda m, name=name: self._on_image(name, m), 100
            )
        self.create_subscription(PoseStamped, 'ee_pose', self._on_pose, 100)
        self.create_subscription(JointState, 'gripper_state', self._on_gripper, 100)
        self.create_subscription(
            String, 'libero_bridge/episode', lambda m: self.episodes.append(_json(m)), LATCHED
        )
        self.create_subscription(
            String, 'libero_bridge/result', lambda m: self.results.append(_json(m)), LATCHED
        )
        self.chunks = self.create_publisher(ActionChunk, 'lightvla/action_chunk', 10)
        self.reset = self.create_client(Trigger, 'libero_bridge/reset')

    def listen(self, topic, images):
        """Append another bridge's images to a list."""
        self.create_subscription(Image, topic, images.append, 1)

    def _on_clock(self, message):
        self.times.append(stamp_ns(message.clock))

    def _on_image(self, name, message):
        self.images.append(message)
        self.stamps[name].append(stamp_ns(message.header.stamp))

    def _on_pose(self, message):
        position = message.pose.position
        self.poses.append(np.array([position.x, position.y, position.z]))
        self.stamps['pose'].append(stamp_ns(message.header.stamp))

    def _on_gripper(self, message):
        self.stamps['gripper'].append(stamp_ns(message.header.stamp))


def _json(message):
    return json.loads(message.data)


class BridgeRig:
    """The bridge, its peer, and a thread that spins both."""

    def __init__(self, **parameters):
        self.context = Context()
        self.context.init()
        options = {'context': self.context, 'namespace': NAMESPACE}
        overrides = [Parameter(k, value=v) for k, v in parameters.items()]
        self.bridge = LiberoBridge(parameter_overrides=overrides, **options)
        self.peer = Peer(**options)
        self.draws = 0
        self._stop = threading.Event()
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.bridge)
        self._executor.add_node(self.peer)
        self._thread = threading.Thread(
            target=spin, args=(self._executor, self.peer, self._stop), daemon=True
        )
        self._thread.start()
        topics = ('third_person/image', 'wrist/image', 'ee_pose', 'gripper_state')
        names = [f'{NAMESPACE}/{topic}' for topic in topics]
        self.until(
            lambda: (
                all(self.bridge.count_subscribers(name) for name in ['/clock', *names])
                and self.peer.chunks.get_subscription_count()
                and self.peer.reset.service_is_ready()
            ),
            'discovery',
        )

    def until(self, condition, what, timeout=120.0):
        """Wait for a condition."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f'waited {timeout} s for {what}'
            time.sleep(0.005)

    def start(self, **parameters):
        """Start an episode, which ends a running one; return what ~/episode says of it."""
        self.set(**parameters)
        peer = self.peer
        known = len(peer.episodes)
        self.call_reset()
        self.until(lambda: len(peer.episodes) > known, 'an episode')
        return peer.episodes[-1]

    def set(self, **parameters):
        """Set parameters of the bridge."""
        values = [Parameter(k, value=v) for k, v in parameters.items()]
        outcomes = self.bridge.set_parameters(values)
        assert all(outcome.successful for outcome in outcomes), outcomes

    def call_reset(self):
        future = self.peer.reset.call_async(Trigger.Request())
        self.until(future.done, 'the answer of ~/reset')
        assert future.result().success

    def result(self, episode):
        """Wait for the result of an episode, by number."""
        found = []

        def there():
            found[:] = [r for r in self.peer.results if r['episode'] == episode]
            return bool(found)

        self.until(there, f'the result of episode {episode}')
        assert len(found) == 1
        return found[0]

    def seen(self, name, start):
        """Stamps of one topic since an episode's start."""
        return [stamp for stamp in self.peer.stamps[name] if stamp >= start]

    def close(self):
        self._stop.set()
        self._thread.join(10.0)
        self.bridge.shut_down()
        self._executor.shutdown()
        self.bridge.destroy_node()
        self.peer.destroy_node()
        self.context.try_shutdown()


@contextmanager
def bridge_rig(monkeypatch, **parameters):
    """Build a rig that counts what is drawn."""
    built = BridgeRig(**parameters)
    draw = mujoco.mjr_render

    def counted(*args, **kwargs):
        built.draws += 1
        return draw(*args, **kwargs)

    monkeypatch.setattr(mujoco, 'mjr_render', counted)
    try:
        yield built
    finally:
        built.close()
