"""The chunk executor node: chunks in, poses out; and every fault holds, with its reason."""

import multiprocessing
import signal
import subprocess
import time

import numpy as np
import pytest
from executor_rig import HOME, executor_rig, run_arm
from geometry_msgs.msg import PoseStamped
from lightvla_ros.msg import ActionChunk, VlaStatus
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.parameter import Parameter
from std_msgs.msg import Bool

from lightvla_ros.nodes.chunk_executor_node import ChunkExecutorNode
from lightvla_ros.nodes.conversions import stamp_ns
from lightvla_ros.nodes.parameters import ParameterError
from lightvla_ros.policy.poses import Pose
from lightvla_ros.runtime.reasons import kind

WAITING, RUNNING = VlaStatus.WAITING, VlaStatus.RUNNING
HOLDING, FAULT = VlaStatus.HOLDING, VlaStatus.FAULT


def test_a_chunk_moves_the_arm_and_then_it_rests():
    with executor_rig() as r:
        r.ready()
        assert np.allclose(r.arm.pose.position, HOME.position, atol=1e-6)
        r.move()
        r.until_state(RUNNING)
        r.until_state(HOLDING, 'no_target')
        assert r.rests()
        # at half the speed: 8 times 1 cm ahead for 0.1 s, of which this arm makes 46 %; then the
        # last target stays for 0.1 s, and the arm makes 46 % of what is left
        assert 0.02 < r.arm.pose.position[1] < (8 + 0.54) * 0.01 * 0.46 + 0.002
        newest = r.arm.targets[-1]
        assert newest.header.frame_id == 'panda_link0'
        gaps = np.diff([stamp_ns(target.header.stamp) for target in r.arm.targets])
        assert (gaps > 0).all()
        assert np.median(gaps) < 50_000_000  # 10 ms, unless the machine is busy


def test_nothing_is_published_before_the_arm_was_seen():
    with executor_rig(autostart=False) as r:
        r.arm.reporting = False
        r.node.autostart()
        r.arm.send()
        r.until_state(WAITING, 'state_missing')
        time.sleep(0.3)
        assert r.arm.targets == []


def test_a_hold_of_the_policy_is_obeyed_at_once():
    with executor_rig() as r:
        r.move()
        r.arm.send(steps=0, why='camera_stale:wrist 0.6 s old')
        r.until_state(HOLDING, 'camera_stale:wrist')
        assert r.rests()


def _other_publisher(r):
    other = Node('other', namespace=r.namespace)
    other.create_publisher(PoseStamped, 'target_pose', 1)
    return other.destroy_node


def _stale(r):
    r.arm.reporting = False
    return lambda: setattr(r.arm, 'reporting', True)


def _other_frame(r):
    r.arm.frame = 'world'
    return lambda: setattr(r.arm, 'frame', 'panda_link0')


def _no_dead_man(r):
    r.arm.enabling = False
    return lambda: setattr(r.arm, 'enabling', True)


def _no_controller(r):
    r.arm.destroy_subscription(r.arm.controller)
    return None


HOLDS = {
    'two_publishers:target_pose': _other_publisher,
    'state_stale:measured_pose': _stale,
    'bad_frame:ee_pose': _other_frame,
    'enable_missing': _no_dead_man,
    'controller_missing': _no_controller,
}


@pytest.mark.parametrize('why', HOLDS)
def test_a_fault_holds_and_motion_goes_on_when_it_is_gone(why):
    with executor_rig(speed=0.1) as r:
        r.move(y=0.05)
        undo = HOLDS[why](r)
        r.until_state(HOLDING, why)
        r.arm.send(y=0.05)
        assert r.rests()
        if undo is None:
            return
        undo()
        r.until(lambda: r.arm.state[1] != why, 'the fault to go')
        if r.arm.state[0] != FAULT:
            r.arm.send(y=0.05)
            r.until_state(RUNNING)


def test_an_arm_that_jumps_is_not_believed_and_not_followed():
    with executor_rig(speed=0.1) as r:
        r.move(y=0.05)
        r.arm.following = False
        r.arm.pose = Pose(r.arm.pose.position + [0, 0.15, 0], r.arm.pose.quaternion)
        r.until(lambda: 'state_jump' in r.arm.state[1], 'state_jump')
        y = r.arm.targets[-1].pose.position.y
        time.sleep(0.3)
        assert r.arm.targets[-1].pose.position.y == pytest.approx(y, abs=1e-3)


def test_an_arm_that_does_not_follow_stops_until_a_reset():
    with executor_rig(speed=0.1) as r:
        r.move(y=0.05)
        r.arm.following = False
        r.arm.pose = Pose(r.arm.pose.position + [0, 0.09, 0], r.arm.pose.quaternion)
        r.until_state(FAULT, 'deviation')
        r.arm.following = True
        r.arm.send()
        assert r.rests()
        assert r.arm.state == (FAULT, 'deviation')
        assert r.reset().success
        r.move()


def test_an_operator_stops_until_a_reset():
    with executor_rig() as r:
        r.move()
        r.arm.stop_publisher.publish(Bool(data=True))
        r.until_state(FAULT, 'operator_stop')
        r.arm.send()
        assert r.rests()
        r.arm.stop_publisher.publish(Bool(data=False))  # taking the order back does not resume
        assert r.rests()
        assert r.reset().success
        r.move()


CHUNKS = {
    'wrong_session': {'session_id': 'another'},
    'bad_frame:action_chunk': {'frame_id': 'world'},
    'wrong_reference': {'reference': ActionChunk.REFERENCE_PREVIOUS_TARGET},
}


@pytest.mark.parametrize('why', CHUNKS)
def test_a_chunk_that_does_not_belong_here_holds(why):
    with executor_rig(speed=0.1) as r:
        r.move(y=0.05)
        r.arm.send(y=0.05, **CHUNKS[why])
        r.until_state(HOLDING, why)
        assert r.rests()


def test_a_damaged_chunk_holds():
    with executor_rig(speed=0.1) as r:
        r.move(y=0.05)
        message = r.arm.send(steps=0)
        message.schema_version = 77
        r.arm.chunk_publisher.publish(message)
        r.until_state(HOLDING, 'bad_chunk')
        assert r.rests()
        r.arm.send()
        r.until_state(RUNNING)


def test_the_policy_that_is_killed_leaves_an_arm_that_rests():
    """Nothing more comes: the last chunk ends, or valid_until passes."""
    with executor_rig() as r:
        r.move()
        r.until_state(HOLDING, 'no_target')
        assert r.rests()


def test_deactivation_in_motion_holds_and_activation_forgets():
    with executor_rig(speed=0.1) as r:
        r.move(y=0.05)
        r.node.trigger_deactivate()
        r.until_state(VlaStatus.INACTIVE, '')
        count = len(r.arm.targets)
        assert r.rests()
        assert len(r.arm.targets) <= count + 1
        r.arm.send()
        assert r.rests()
        r.node.trigger_activate()
        r.ready()
        r.move()


def test_an_executor_that_is_killed_leaves_a_target_that_is_near():
    """crisp_controllers holds the last target for ever, so the arm goes there and no farther."""
    with executor_rig(process=True, speed=0.5) as r:
        r.move(y=0.08)
        r.process.kill()
        r.process.wait()
        place = r.arm.pose.position.copy()
        assert np.linalg.norm(r.arm.targets[-1].pose.position.y - place[1]) <= 0.05
        r.arm.send()
        time.sleep(1.0)  # the arm goes to the last target
        assert r.rests()
        assert np.linalg.norm(r.arm.pose.position - place) <= 0.05 + 1e-3


def test_an_arm_whose_controller_is_killed_gets_no_motion():
    with executor_rig(speed=0.1) as r:
        r.arm.reporting = False
        r.arm.destroy_publisher(r.arm.pose_publisher)
        r.arm.destroy_subscription(r.arm.controller)
        twin = multiprocessing.get_context('spawn').Process(target=run_arm, args=(r.namespace,))
        twin.start()
        try:
            r.ready()
            r.arm.send(y=0.05)
            r.until_state(RUNNING)
        finally:
            twin.kill()
            twin.join()
        r.until_state(HOLDING, 'state_stale:measured_pose')
        r.arm.send(y=0.05)
        time.sleep(0.3)
        assert r.arm.state == (HOLDING, 'state_stale:measured_pose')


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_executor_that_is_asked_to_end_in_motion_holds_first(number):
    with executor_rig(process=True, speed=0.2) as r:
        r.move(y=0.08)
        r.until_state(RUNNING)
        r.process.send_signal(number)
        assert r.process.wait(10) == 0
        r.until_state(VlaStatus.UNCONFIGURED, 'shutdown')
        # the last command is where the arm was
        assert abs(r.arm.targets[-1].pose.position.y - r.arm.pose.position[1]) < 0.006
        assert r.rests()


def test_an_executor_that_is_started_again_waits_for_a_chunk():
    with executor_rig(process=True) as r:
        r.move()
        r.process.kill()
        r.process.wait()
        r.process = subprocess.Popen(r.process.args)
        r.ready()
        assert r.rests()
        r.move()


@pytest.mark.parametrize('jump', [-20.0, 20.0])
def test_a_system_clock_that_is_set_holds(monkeypatch, jump):
    with executor_rig(speed=0.1) as r:
        clock = r.node.get_clock()
        now, shift = clock.now, [0.0]
        monkeypatch.setattr(clock, 'now', lambda: now() + Duration(seconds=shift[0]))
        r.arm.stamp = lambda: clock.now().nanoseconds
        r.move(y=0.05)
        shift[0] = jump
        r.until(
            lambda: any(kind(status.reason) == 'clock_jump' for status in r.arm.statuses),
            'clock_jump',
        )
        assert r.rests()
        r.arm.send(y=0.05)
        r.until_state(RUNNING)


@pytest.mark.parametrize('seconds', [-0.3, 0.3])
def test_a_pose_from_another_time_is_not_acted_on(seconds):
    with executor_rig(speed=0.1) as r:
        r.move(y=0.05)
        true = r.arm.stamp
        r.arm.stamp = lambda: true() + round(seconds * 1e9)
        why = 'state_stale:measured_pose' if seconds < 0 else 'future_stamp:ee_pose'
        r.until_state(HOLDING, why)
        assert r.rests()


@pytest.mark.parametrize(
    ('parameters', 'said'),
    [
        ({'controller': 'servo_pose'}, 'servo_pose cannot execute spring'),
        ({'max_speed': 9.0}, 'max_speed'),
        ({'box_min': [0.8, 0.0, 0.0]}, 'box_min'),
        ({'keep_out': '1,2,3'}, 'keep_out'),
        ({'keep_out': 'here'}, 'keep_out'),
        ({'deviation_translation': 0.02}, 'deviation_translation'),
    ],
)
def test_parameters_that_contradict_each_other_are_refused(parameters, said):
    overrides = [Parameter(k, value=v) for k, v in parameters.items()]
    with pytest.raises(ParameterError, match=said):
        ChunkExecutorNode(namespace='/refused', parameter_overrides=overrides)
