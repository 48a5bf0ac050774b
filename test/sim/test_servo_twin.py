"""MoveIt Servo's rules over real topics around LIBERO's arm, alone and under the chunk executor."""

import threading

import numpy as np
import pytest
from bridge_rig import NAMESPACE, PERIOD, bridge_rig, chunk
from geometry_msgs.msg import TwistStamped
from lightvla_ros.msg import VlaStatus
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool

pytest.importorskip(
    'moveit_msgs.srv', reason='moveit_msgs is not there; tools/setup.sh builds its stand-in'
)
from moveit_msgs.msg import ServoStatus
from moveit_msgs.srv import ServoCommandType

from lightvla_ros.files import resource
from lightvla_ros.nodes.chunk_executor_node import ChunkExecutorNode
from lightvla_ros.nodes.conversions import time_message
from lightvla_ros.nodes.qos import LATCHED
from lightvla_ros.nodes.spin import spin
from lightvla_ros.runtime.reasons import kind

pytestmark = pytest.mark.sim
RISE = [0, 0, 0.5, 0, 0, 0, -1.0]
TURN = [0, 0, 0, 0, 0, -0.4, -1.0]  # the last joint towards its upper bound
CONFIG = ['--ros-args', '--params-file', str(resource('config/libero.param.yaml'))]


class ServoRig:
    """A bridge with Servo, and what a test sends to it."""

    def __init__(self, bridge):
        self.bridge = bridge
        peer = bridge.peer
        self.codes, self.states = [], []
        self.twists = None
        self.switch = peer.create_client(ServoCommandType, 'servo_node/switch_command_type')
        self.pausing = peer.create_client(SetBool, 'servo_node/pause_servo')
        peer.create_subscription(
            ServoStatus, 'servo_node/status', lambda m: self.codes.append(m.code), 100
        )
        peer.create_subscription(
            VlaStatus,
            'chunk_executor/status',
            lambda m: self.states.append((m.state, kind(m.reason))),
            LATCHED,
        )
        self.sequence = 0
        self.until(self.switch.service_is_ready, 'the service')
        self.until(lambda: self.codes, 'a status before the first episode')
        assert set(self.codes) == {0}

    def until(self, condition, what, timeout=30.0):
        self.bridge.until(
            condition, f'{what}; {self.codes[-3:]}, {self.states[-3:]}', timeout=timeout
        )

    def call(self, client, request):
        future = client.call_async(request)
        self.until(future.done, client.srv_name)
        return future.result()

    def choose(self, command_type):
        return self.call(self.switch, ServoCommandType.Request(command_type=command_type)).success

    def pause(self, paused):
        assert self.call(self.pausing, SetBool.Request(data=paused)).success

    def start(self):
        self.states.clear()
        episode = self.bridge.start()
        self.until(lambda: len(self.bridge.seen('pose', episode['start'])) > 5, 'the arm')
        return episode

    def ready(self):
        """Wait until the executor lacks nothing but a chunk; an episode is a clock jump."""
        fine = [(VlaStatus.WAITING, why) for why in ('no_target', 'clock_jump')]
        self.until(lambda: self.states and self.states[-1] in fine, 'the executor')

    def now(self):
        return self.bridge.peer.times[-1]

    def twist(self, seconds, frame='world', age=0.0, z=0.1):
        """Send twists for a while of simulated time; return how far the arm has gone."""
        begin, place = self.now(), self.bridge.peer.poses[-1]
        while self.now() < begin + seconds * 1e9:
            message = TwistStamped()
            message.header.frame_id = frame
            message.header.stamp = time_message(self.now() - int(age * 1e9))
            message.twist.linear.z = z
            self.twists.publish(message)
            sent = self.now()
            self.until(lambda sent=sent: self.now() > sent, 'time to pass')
        return self.bridge.peer.poses[-1] - place

    def send(self, action, steps=64):
        """Send a chunk of equal steps, as the policy node would."""
        now = self.now()
        message = chunk(now, [action] * steps, valid_until=now + 100 * PERIOD)
        message.sequence = self.sequence
        self.sequence += 1
        self.bridge.peer.chunks.publish(message)

    def speeds(self, start):
        """Of the arm, between two measured poses [m/s]."""
        peer = self.bridge.peer
        poses = np.array(peer.poses[-len(self.bridge.seen('pose', start)) :])
        stamps = np.array(self.bridge.seen('pose', start))[-len(poses) :]
        later = np.diff(stamps) > 0  # an observation repeats a pose
        gone = np.linalg.norm(np.diff(poses, axis=0), axis=1)
        return gone[later] / np.diff(stamps * 1e-9)[later]


@pytest.fixture(scope='module')
def bridge():
    with (
        pytest.MonkeyPatch.context() as monkeypatch,
        bridge_rig(
            monkeypatch,
            autostart=False,
            controller='servo',
            mode='wall_clock',
            camera_size=32,
            camera_every=64,
        ) as built,
    ):
        yield ServoRig(built)


@pytest.fixture
def by_hand(bridge):
    """The right to send twists; the executor holds while another node has it."""
    peer = bridge.bridge.peer
    bridge.twists = peer.create_publisher(TwistStamped, 'servo_node/delta_twist_cmds', 1)
    yield
    peer.destroy_publisher(bridge.twists)


@pytest.fixture
def executor(bridge):
    """The chunk executor with Servo's twists, as `lightvla demo --controller servo` starts it."""
    values = {'controller': 'servo_twist', 'gripper': 'none', 'max_speed': 0.4}
    overrides = [
        Parameter(name, value=value)
        for name, value in {**values, 'max_angular_speed': 0.8, 'use_sim_time': True}.items()
    ]
    context = bridge.bridge.context
    node = ChunkExecutorNode(
        context=context,
        namespace=NAMESPACE,
        cli_args=CONFIG,
        parameter_overrides=overrides,
    )
    spinner, stop = SingleThreadedExecutor(context=context), threading.Event()
    spinner.add_node(node)
    thread = threading.Thread(target=spin, args=(spinner, node, stop), daemon=True)
    thread.start()
    bridge.start()  # first: a reset moves the arm, which the executor would not believe
    node.autostart()
    bridge.ready()
    yield node
    stop.set()
    thread.join(10.0)
    spinner.shutdown()
    node.shut_down()
    node.destroy_node()


def test_servo_s_rules_hold_over_topics(bridge, by_hand):
    bridge.start()
    assert abs(bridge.twist(0.3)[2]) < 0.002, 'dropped before a command type was chosen'
    assert not bridge.choose(7)
    assert bridge.choose(1)
    assert bridge.twist(0.4)[2] > 0.01
    assert bridge.codes[-1] == 0
    bridge.twist(0.3, z=0.0)
    assert abs(bridge.twist(0.3, frame='panda_link0')[2]) < 0.002
    assert bridge.codes[-1] == -1
    assert abs(bridge.twist(0.3, age=0.2)[2]) < 0.002, 'too old'
    bridge.pause(True)
    told = len(bridge.codes)
    bridge.twist(0.3, z=0.0)
    assert len(bridge.codes) <= told + 2, 'silent while it is paused'
    bridge.pause(False)
    assert bridge.choose(2)
    assert abs(bridge.twist(0.3)[2]) < 0.002, 'another type was chosen'


def test_the_executor_moves_the_arm_through_servo(bridge, executor):
    start = bridge.bridge.peer.episodes[-1]['start']
    place = bridge.bridge.peer.poses[-1]
    bridge.send(RISE, steps=16)  # 16 steps, each 2.5 cm ahead: 15 cm/s for 0.8 s
    bridge.until(lambda: bridge.states[-1] == (VlaStatus.HOLDING, 'no_target'), 'its end')
    rise = bridge.bridge.peer.poses[-1] - place
    assert 0.08 < rise[2] < 0.16
    assert np.abs(rise[:2]).max() < 0.01
    assert bridge.speeds(start).max() < 0.42
    assert set(bridge.codes[-50:]) == {0}
    resting = bridge.bridge.peer.poses[-1]
    begin = bridge.now()
    bridge.until(lambda: bridge.now() > begin + 5e8, 'half a second')
    assert np.abs(bridge.bridge.peer.poses[-1] - resting).max() < 0.005


def test_a_bound_of_a_joint_stops_the_executor_until_a_reset(bridge, executor):
    bridge.send(TURN)
    bridge.until(lambda: 6 in bridge.codes[-20:], 'the bound')
    bridge.until(lambda: bridge.states[-1] == (VlaStatus.FAULT, 'controller_halted'), 'the stop')
    bridge.send(RISE)
    place, begin = bridge.bridge.peer.poses[-1], bridge.now()
    bridge.until(lambda: bridge.now() > begin + 5e8, 'half a second')
    assert np.abs(bridge.bridge.peer.poses[-1] - place).max() < 0.005
    assert bridge.states[-1] == (VlaStatus.FAULT, 'controller_halted')


def test_a_paused_servo_is_silent_and_the_executor_holds(bridge, executor):
    bridge.pause(True)
    bridge.until(lambda: bridge.states[-1][1] == 'controller_missing', 'the hold')
    bridge.pause(False)
    bridge.ready()
