"""The chunk executor with MoveIt Servo: what it sends, and what it does about Servo's status."""

import os
import random
import time

import numpy as np
import pytest
from executor_rig import executor_rig
from lightvla_ros.msg import ActionChunk, VlaStatus

pytest.importorskip(
    'moveit_msgs.srv', reason='moveit_msgs is not there; tools/setup.sh builds its stand-in'
)
from moveit_msgs.msg import ServoStatus
from servo_peer import ServoPeer

from lightvla_ros.nodes.conversions import stamp_ns

TWIST, POSE = 1, 2
FUZZ = int(os.environ.get('LIGHTVLA_FUZZ', '500'))  # random messages
RECORDED = {'reference': ActionChunk.REFERENCE_PREVIOUS_TARGET}


def servo(controller='servo_twist', **parameters):
    # a machine under load is late at times, which is not what is tested here; the stretch of a
    # spring, max_speed / 6.1, allows 0.16 s
    parameters = {'state_timeout': 0.15, 'step_timeout': 0.15, 'repeat_window': 0.0} | parameters
    if controller == 'servo_pose':
        parameters['execution'] = 'displacement'
    return executor_rig(arm=ServoPeer, controller=controller, **parameters)


def go_on(r):
    r.arm.send(y=0.05)
    r.until_state(VlaStatus.RUNNING)
    r.until(lambda: r.arm.speeds(3).any(), 'a twist')


def test_twists_are_in_the_base_frame_stamped_now_and_never_too_fast():
    with servo(speed=1.0, twist_gain=20.0, max_angular_speed=0.3) as r:
        r.move(y=0.06)
        r.until_state(VlaStatus.HOLDING, 'no_target')
        assert r.arm.kinds == [TWIST]
        speeds = r.arm.speeds()
        assert speeds[:, 0].max() == pytest.approx(0.25, rel=1e-3), 'max_speed cuts it'
        assert speeds[:, 1].max() <= 0.3 + 1e-6
        assert {message.header.frame_id for message in r.arm.targets} == {'panda_link0'}
        gaps = np.diff([stamp_ns(message.header.stamp) for message in r.arm.targets[-50:]])
        assert np.median(gaps) < 50_000_000, (
            'Servo needs 20 Hz; the rate itself is tested with crisp'
        )


def test_a_hold_is_a_twist_of_zero():
    with servo() as r:
        r.ready()
        time.sleep(0.2)
        assert not r.arm.speeds().any()
        r.move()
        assert r.arm.speeds().any()
        r.until_state(VlaStatus.HOLDING, 'no_target')
        time.sleep(0.2)
        assert not r.arm.speeds(10).any()
        assert r.rests()


@pytest.mark.parametrize('controller', ['servo_twist', 'servo_pose'])
@pytest.mark.parametrize('code', [2, 5, 6])
def test_a_status_that_halts_stops_until_a_reset(code, controller):
    chunk = RECORDED if controller == 'servo_pose' else {}
    with servo(controller, speed=0.1) as r:
        r.move(y=0.05, **chunk)
        r.arm.code = code
        r.until_state(VlaStatus.FAULT, 'controller_halted')
        r.arm.code = 0
        r.arm.send(y=0.05, **chunk)
        assert r.rests()
        if controller == 'servo_twist':
            assert not r.arm.speeds(10).any()
        assert r.arm.state == (VlaStatus.FAULT, 'controller_halted')
        assert r.reset().success
        r.move(y=0.05, **chunk)


@pytest.mark.parametrize('code', [0, 1, 3, 4])
def test_a_status_that_slows_down_does_not_stop(code):
    with servo(speed=0.1) as r:
        r.ready()
        r.arm.code = code
        time.sleep(0.3)
        go_on(r)


@pytest.mark.parametrize('code', [-1, 7, -128])
def test_a_refused_command_holds_and_motion_goes_on_when_it_is_accepted(code):
    with servo(speed=0.1) as r:
        r.move(y=0.05)
        r.arm.code = code
        r.until_state(VlaStatus.HOLDING, 'controller_refuses')
        r.arm.send(y=0.05)
        assert r.rests()
        assert not r.arm.speeds(10).any()
        r.arm.code = 0
        r.until_state(VlaStatus.HOLDING, 'no_target')
        go_on(r)


def test_random_statuses_keep_the_bounds_and_leave_nothing_behind():
    source = random.Random(7)
    with servo(speed=0.1) as r:
        r.ready()
        for number in range(FUZZ):
            text = ''.join(chr(source.choice([0x41, 0x0A, 0x1B, 0x1F600])) for _ in range(9))
            message = ServoStatus(code=source.randint(-128, 127), message=text)
            r.arm.status_publisher.publish(message)
            if number % 10 == 0:
                r.arm.send(y=0.05)
            time.sleep(0.003)
        speeds = r.arm.speeds()
        assert np.isfinite(speeds).all()
        assert speeds[:, 0].max() <= 0.25 + 1e-6
        r.until(lambda: r.arm.state == (VlaStatus.FAULT, 'controller_halted'), 'a halt')
        assert r.reset().success
        r.move(y=0.05)


def test_silence_holds_and_the_command_type_is_set_again_afterwards():
    with servo(speed=0.1) as r:
        r.move(y=0.05)
        r.arm.telling = False
        r.until_state(VlaStatus.HOLDING, 'controller_missing')
        r.arm.send(y=0.05)
        assert r.rests()
        assert r.arm.kinds == [TWIST]
        r.arm.telling = True  # as a Servo that was started again, which knows no type
        r.until_state(VlaStatus.HOLDING, 'no_target')
        assert r.arm.kinds == [TWIST, TWIST]
        go_on(r)


def test_without_a_command_type_nothing_moves():
    with servo(autostart=False) as r:
        r.arm.accepts = False
        r.node.autostart()
        r.until_state(VlaStatus.WAITING, 'controller_not_ready')
        r.arm.send()
        assert r.rests()
        r.arm.accepts = True
        r.until(lambda: r.arm.state[1] == 'no_target', 'Servo to be ready')
        go_on(r)


def test_without_servo_s_service_nothing_moves():
    with servo(autostart=False) as r:
        r.arm.destroy_service(r.arm.switch)
        r.node.autostart()
        r.until_state(VlaStatus.WAITING, 'controller_missing')
        r.arm.send()
        assert r.rests()


def test_poses_are_sent_for_recorded_displacements():
    with servo('servo_pose') as r:
        r.move(**RECORDED)
        r.until_state(VlaStatus.HOLDING, 'no_target')
        assert r.arm.kinds == [POSE]
        assert {message.header.frame_id for message in r.arm.targets} == {'panda_link0'}
        assert r.rests()
        newest = r.arm.targets[-1].pose.position
        assert r.arm.pose.position == pytest.approx([newest.x, newest.y, newest.z], abs=1e-3)
