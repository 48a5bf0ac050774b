"""MoveIt Servo's rules over real topics around LIBERO's arm."""

import pytest
from bridge_rig import bridge_rig
from geometry_msgs.msg import TwistStamped
from std_srvs.srv import SetBool

pytest.importorskip(
    'moveit_msgs.srv', reason='moveit_msgs is not there; tools/setup.sh builds its stand-in'
)
from moveit_msgs.msg import ServoStatus
from moveit_msgs.srv import ServoCommandType

from lightvla_ros.nodes.conversions import time_message

pytestmark = pytest.mark.sim


class ServoRig:
    """A bridge with Servo, and what a test sends to it."""

    def __init__(self, bridge):
        self.bridge = bridge
        peer = bridge.peer
        self.codes = []
        self.twists = None
        self.switch = peer.create_client(ServoCommandType, 'servo_node/switch_command_type')
        self.pausing = peer.create_client(SetBool, 'servo_node/pause_servo')
        peer.create_subscription(
            ServoStatus, 'servo_node/status', lambda m: self.codes.append(m.code), 100
        )
        self.until(self.switch.service_is_ready, 'the service')
        self.until(lambda: self.codes, 'a status before the first episode')
        assert set(self.codes) == {0}

    def until(self, condition, what, timeout=30.0):
        self.bridge.until(condition, f'{what}; {self.codes[-3:]}', timeout=timeout)

    def call(self, client, request):
        future = client.call_async(request)
        self.until(future.done, client.srv_name)
        return future.result()

    def choose(self, command_type):
        return self.call(self.switch, ServoCommandType.Request(command_type=command_type)).success

    def pause(self, paused):
        assert self.call(self.pausing, SetBool.Request(data=paused)).success

    def start(self):
        episode = self.bridge.start()
        self.until(lambda: len(self.bridge.seen('pose', episode['start'])) > 5, 'the arm')
        return episode

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
