"""What comes in is missing, late or wrong."""

import time

import cv2
import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from lightvla_ros.msg import VlaStatus
from rclpy.duration import Duration
from rclpy.serialization import serialize_message
from rig import rig
from sensor_msgs.msg import CompressedImage, JointState
from std_msgs.msg import String

from lightvla_ros.nodes.conversions import gripper_to_message, pose_to_message, stamp_ns
from lightvla_ros.nodes.policy_inputs import STATE_PERIOD
from lightvla_ros.policy.state import RobotState

WAITING, RUNNING, HOLDING = VlaStatus.WAITING, VlaStatus.RUNNING, VlaStatus.HOLDING


def test_fault_01_camera_never_arrives(bundled_policy):
    with rig(bundled_policy) as r:
        r.matched()
        r.robot.cameras = {'third_person'}
        r.robot.feeding = True
        r.robot.say('pick up the milk')
        r.until_state(WAITING, 'camera_missing:wrist')
        r.settle()
        assert r.robot.chunks == []
        assert r.engine.calls == 0


def test_fault_02_camera_stops(bundled_policy):
    with rig(bundled_policy) as r:
        r.run()
        r.robot.feeding = False
        r.until_state(HOLDING, 'camera_stale:third_person')
        r.settle()
        assert r.robot.hold_kinds() == ['camera_stale:third_person']
        assert 'max_image_age 0.500 s' in r.robot.holds()[0].reason
        assert not r.robot.chunks[-1].steps, 'the hold must be the last word'
        r.robot.feeding = True
        r.until_state(RUNNING)
        r.until(lambda: r.robot.chunks[-1].steps, 'motion again')


def test_fault_a_growing_number_is_no_new_status(bundled_policy):
    """How old a camera is stands in each heartbeat, and is not published 50 times a second."""
    with rig(bundled_policy) as r:
        r.run()
        r.robot.feeding = False
        r.until_state(HOLDING, 'camera_stale:third_person')
        seen = len(r.robot.statuses)
        r.settle()
        later = [status.reason for status in r.robot.statuses[seen - 1 :]]
        assert len(later) <= 4
        assert len(set(later)) == len(later), 'the number must be refreshed'


def test_fault_03_one_of_two_cameras_drops(bundled_policy):
    with rig(bundled_policy) as r:
        r.run()
        r.robot.cameras = {'third_person'}
        r.until_state(HOLDING, 'camera_stale:wrist')
        calls = r.engine.calls
        r.settle()
        assert r.engine.calls == calls, 'an old wrist image was paired with new ones'


def test_fault_04_unsynchronised_stamps(bundled_policy):
    with rig(bundled_policy, max_camera_skew=0.005) as r:
        r.matched()
        # on a grid, half a period apart: no two images were taken together, whatever the load
        r.robot.stamp = lambda: time.time_ns() // 50_000_000 * 50_000_000
        r.robot.skew_ns = 25_000_000
        r.robot.feeding = True
        r.robot.say('pick up the milk')
        r.until_state(WAITING, 'camera_skew')
        r.settle()
        assert r.engine.calls == 0
        assert r.node.runner.inbox.counts['skewed'] > 0
        r.robot.skew_ns = 0
        r.until_state(RUNNING)


@pytest.mark.parametrize(
    ('shift', 'reason'),
    [(None, 'bad_stamp'), (10.0, 'future_stamp'), (-10.0, 'camera_stale')],
    ids=['zero', 'future', 'old'],
)
def test_fault_05_wrong_stamps(bundled_policy, shift, reason):
    def alter(message):
        message.header.stamp.sec = 0 if shift is None else message.header.stamp.sec + int(shift)
        message.header.stamp.nanosec *= shift is not None

    with rig(bundled_policy) as r:
        r.matched()
        r.robot.alter = alter
        r.robot.feeding = True
        r.robot.say('pick up the milk')
        r.until_state(WAITING, f'{reason}:wrist')
        assert r.engine.calls == 0


def test_fault_05_repeated_stamps_are_no_new_images(bundled_policy):
    with rig(bundled_policy) as r:
        r.run()
        frozen = r.robot.get_clock().now().nanoseconds
        r.robot.stamp = lambda: frozen
        r.until_state(HOLDING, 'camera_stale:third_person')
        assert r.node.runner.inbox.counts['repeated'] > 0


def _reshape(**fields):
    def alter(message):
        for name, value in fields.items():
            setattr(message, name, value)

    return alter


@pytest.mark.parametrize(
    ('alter', 'reason'),
    [
        (_reshape(encoding='yuv422'), 'bad_encoding'),
        (_reshape(height=0, width=0, step=0, data=b''), 'bad_size'),
        (_reshape(height=16384, width=16384), 'bad_size'),
        (_reshape(step=10), 'bad_size'),
        (_reshape(data=b'\x00' * 100), 'bad_data'),
    ],
    ids=['encoding', 'no_pixels', 'huge', 'step', 'short'],
)
def test_fault_06_wrong_images(bundled_policy, alter, reason):
    with rig(bundled_policy) as r:
        r.run()
        r.robot.alter = alter
        r.until_state(HOLDING, f'{reason}:wrist')
        r.robot.alter = lambda message: None
        r.until_state(RUNNING)


def test_fault_07_corrupt_jpeg_or_other_format(bundled_policy):
    with rig(bundled_policy, image_transport='compressed') as r:
        publishers = [
            r.robot.create_publisher(CompressedImage, f'{name}/image/compressed', 1)
            for name in ('third_person', 'wrist')
        ]
        r.until(lambda: all(p.get_subscription_count() for p in publishers), 'discovery')
        altered = [lambda jpeg: (jpeg, 'jpeg')]

        def feed_images():
            stamp = r.robot.get_clock().now().to_msg()
            alterations = (lambda jpeg: (jpeg, 'rgb8; jpeg compressed bgr8'), altered[0])
            for publisher, alter in zip(publishers, alterations, strict=True):
                data, text = alter(cv2.imencode('.jpg', next(r.robot.pictures))[1].tobytes())
                message = CompressedImage(format=text, data=data)
                message.header.stamp = stamp
                publisher.publish(message)

        r.robot.cameras = set()
        r.robot.create_timer(0.05, feed_images)
        r.run()
        for alter, why in (
            (lambda jpeg: (b'\xff\xd8 this is no picture', 'jpeg'), 'bad_data'),
            (lambda jpeg: (jpeg[:5000] + jpeg[6400:], 'jpeg'), 'bad_data'),
            (lambda jpeg: (jpeg, 'bayer_rggb8; jpeg compressed '), 'bad_encoding'),
        ):
            altered[0] = alter
            r.until_state(HOLDING, f'{why}:wrist')
            altered[0] = lambda jpeg: (jpeg, 'jpeg')
            r.until_state(RUNNING)


def test_fault_14_inference_slower_than_the_period(bundled_policy):
    with rig(bundled_policy, replan_steps=1, anchor='observation') as r:
        r.engine.delay = 0.18
        r.run()
        r.until(lambda: len(r.robot.moves()) >= 5, 'five chunks')
        for chunk in r.robot.moves():
            # the newest frame, not one from a queue that grows
            assert stamp_ns(chunk.stats.observation_age) < 150_000_000
            assert chunk.first_step >= 4, 'the steps that are past must be cut'
            assert chunk.first_step + len(chunk.steps) == 8
        assert r.node.statistics.counts['overruns'] >= 4


def test_fault_15_instruction_flood(bundled_policy):
    with rig(bundled_policy, min_instruction_interval=0.1) as r:
        r.run()
        before, sent_before = r.node.runner.inbox.counts['received'], r.robot.sent
        started = time.monotonic()
        count = 0
        while time.monotonic() - started < 1.5:
            r.robot.say(f'pick up object {count}')
            count += 1
            time.sleep(0.001)
        took = time.monotonic() - started
        r.until(
            lambda: r.node.runner.inbox.instruction == f'pick up object {count - 1}', 'the newest'
        )
        accepted = {s.instruction for s in r.robot.statuses if 'object' in s.instruction}
        assert len(accepted) <= took / 0.1 + 2
        sent = r.robot.sent - sent_before
        # half of what is offered are images; the state topics are the rest
        received = (r.node.runner.inbox.counts['received'] - before) / 2
        assert received >= 0.95 * sent - 4


@pytest.mark.parametrize(
    'text',
    ['', '   ', 'x' * 513, 'x' * 4_000_000, 'pick\x07up', 'pick\nup', 'x ' * 200],
    ids=['empty', 'blank', 'long', '4 MiB', 'bell', 'newline', 'too many tokens'],
)
def test_fault_16_instructions_that_are_none(bundled_policy, text):
    with rig(bundled_policy) as r:
        r.run('pick up the milk')
        r.robot.say(text)
        r.until_state(RUNNING, 'instruction_rejected')
        assert r.robot.statuses[-1].instruction == 'pick up the milk'
        moves = len(r.robot.moves())
        r.until(lambda: len(r.robot.moves()) > moves, 'motion to go on')


def test_fault_17_instruction_that_is_not_utf8(bundled_policy):
    with rig(bundled_policy) as r:
        r.run('pick up the milk')
        wire = serialize_message(String(data='pick up the soup')).replace(
            b'soup', b'\xff\xfe\xfd\xfc'
        )
        r.robot.instruction_publisher.publish(wire)
        r.until_state(RUNNING, 'instruction_rejected')
        assert r.robot.statuses[-1].instruction == 'pick up the milk'


def test_fault_18_instruction_changes_during_inference(bundled_policy):
    with rig(bundled_policy, min_instruction_interval=0.0) as r:
        r.run('pick up the milk')
        r.engine.mode = 'hang'
        calls = r.engine.calls
        r.until(lambda: r.engine.calls > calls, 'an inference under way')
        r.robot.say('pick up the soup')
        r.until(r.robot.holds, 'the hold')
        assert r.robot.hold_kinds()[-1] == 'instruction_changed'
        seen = len(r.robot.chunks)
        r.engine.mode = 'ok'
        r.engine.released.set()
        r.until(lambda: len(r.robot.chunks) > seen, 'the new chunk')
        assert all(c.instruction == 'pick up the soup' for c in r.robot.chunks[seen:])
        assert r.node.statistics.counts['discarded'] == 1


def test_same_instruction_again_changes_nothing(bundled_policy):
    """`ros2 topic pub` repeats its message once a second."""
    with rig(bundled_policy) as r:
        r.run('pick up the milk')
        r.robot.say('pick up the milk')
        r.settle()
        assert r.robot.holds() == []


def _simulated_time(r):
    """Run /clock from 100 s on; return the time, which may be changed, and what drives it."""
    now = [100.0]
    r.robot.stamp = lambda: round(now[0] * 1e9)

    def tick():
        now[0] += 0.05
        r.robot.set_time(now[0])

    return now, r.robot.create_timer(0.05, tick)


@pytest.mark.parametrize('jump', [-5.0, 5.0], ids=['back', 'forward'])
def test_fault_19_clock_jumps(bundled_policy, jump):
    with rig(bundled_policy, use_sim_time=True) as r:
        now, timer = _simulated_time(r)

        def ahead():  # an image of the new time came before its /clock
            return jump > 0 and 'future_stamp:third_person' in r.robot.hold_kinds()

        r.run()
        now[0] += jump
        r.until(lambda: 'clock_jump' in r.robot.hold_kinds() or ahead(), 'the hold')
        count = len(r.robot.moves())
        r.until(lambda: len(r.robot.moves()) > count, 'motion after the jump')
        timer.cancel()


def test_fault_19_clock_stops(bundled_policy):
    """The watchdog runs on a steady clock, so a frozen /clock does not keep a robot moving."""
    with rig(bundled_policy, use_sim_time=True) as r:
        now, timer = _simulated_time(r)
        r.run()
        timer.cancel()  # images go on, all with the same stamp
        r.until_state(HOLDING, 'camera_stale:third_person')
        assert not r.robot.chunks[-1].steps


@pytest.mark.parametrize(
    ('joints', 'reason'),
    [
        (
            {f'panda_joint{index}': 0.02 for index in range(1, 8)},
            "bad_state:gripper_state it must name one pair of finger_joints, once, not 'panda_",
        ),
        (
            {'panda_finger_joint1': 40.0, 'panda_finger_joint2': 40.0},
            'bad_state:gripper_state panda_finger_joint1 is 40 m; a finger is 0 to 0.04 m from',
        ),
    ],
    ids=['other joints', 'millimetres'],
)
def test_fingers_that_are_none_are_a_hold(bundled_policy, joints, reason):
    """Fault: joints were taken by index, whatever they were, and motion went on."""

    def alter(message):
        if isinstance(message, JointState):
            message.name, message.position = list(joints), list(joints.values())

    with rig(bundled_policy) as r:
        r.run()
        r.robot.alter_state = alter
        r.until(r.robot.holds, 'the hold')
        assert r.robot.holds()[0].reason.startswith(reason)
        r.robot.alter_state = lambda message: None
        r.until_state(RUNNING)


@pytest.mark.parametrize('step', [-20.0, 20.0], ids=['back', 'forward'])
def test_fault_the_system_clock_is_set(bundled_policy, monkeypatch, step):
    """By NTP, for instance. Set back by 20 s, all cameras were stale for 20 s."""
    with rig(bundled_policy) as r:
        clock = r.node.get_clock()
        now, shift = clock.now, [0.0]
        monkeypatch.setattr(clock, 'now', lambda: now() + Duration(seconds=shift[0]))
        r.robot.stamp = lambda: clock.now().nanoseconds
        r.run()
        shift[0] = step
        r.until(r.robot.holds, 'the hold')
        count = len(r.robot.moves())
        r.until(lambda: len(r.robot.moves()) > count, 'motion after the step', 5.0)
        r.settle()
        said = [log for log in r.robot.logs if log.startswith(f'clock_jump by {step:.1f}')]
        assert len(said) == 1, 'it is said once, with the jump'


def test_fault_state_topics_at_1_khz(bundled_policy):
    """They took 75 % of a core. What is used is a state beside each image."""
    with rig(bundled_policy) as r:
        r.run()
        before, began, sent = r.node.runner.inbox.counts['received'], time.monotonic(), 0
        images = r.robot.sent
        state = RobotState(np.zeros(3), np.array([1.0, 0, 0, 0]), np.array([0.04, -0.04]))
        while time.monotonic() - began < 1.0:
            stamp = r.robot.stamp()
            r.robot.pose_publisher.publish(pose_to_message(state, stamp, 'panda_link0'))
            r.robot.gripper_publisher.publish(gripper_to_message(state, stamp))
            sent += 2
            time.sleep(0.001)
        took = time.monotonic() - began
        states = r.node.runner.inbox.counts['received'] - before - (r.robot.sent - images)
        most = 2 * took / STATE_PERIOD
        assert sent > 2 * most
        assert states <= most + 4
        assert r.robot.holds() == []


def test_a_state_outside_of_what_the_policy_knows_is_a_hold(bundled_policy):
    """Fault: millimetres instead of metres were cut off at the bounds, and motion went on."""
    height = [400.0]

    def alter(message):
        if isinstance(message, PoseStamped):
            message.pose.position.z = height[0]

    with rig(bundled_policy, max_state_excess=0.5) as r:
        r.run()
        r.robot.alter_state = alter
        r.until_state(HOLDING, 'state_out_of_range:ee_pose')
        assert 'ee_position.z is 400, trained 0.007987 to 1.584' in r.robot.holds()[0].reason
        height[0] = 2.0  # within the margin: counted
        r.until_state(RUNNING)
        r.until(lambda: r.node.statistics.counts.get('outside_ee_position.z', 0) >= 2, 'counts')
