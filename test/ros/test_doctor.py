"""`lightvla doctor --live` against real topics with one fault each."""

import itertools
import json

import pytest
from doctor_rig import PICTURES, doctor_rig
from geometry_msgs.msg import PoseStamped
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from spun_nodes import stranger
from std_msgs.msg import String

from lightvla_ros.cli import main
from lightvla_ros.errors import ArgumentError
from lightvla_ros.nodes.launch_arguments import remapping, ros_arguments


@pytest.fixture
def rig(bundled_policy, tmp_path):
    with doctor_rig(bundled_policy, tmp_path / 'sheet.png') as built:
        yield built


def is_failed(finding, *words):
    assert finding.level == 'fail', finding
    for word in words:
        assert word in f'{finding.text} -> {finding.cure}', finding


def test_good_topics_pass_and_pictures_are_written(rig):
    found = rig.examine(1.5)
    for source in ('third_person', 'wrist', 'ee_pose', 'gripper_state', 'instruction'):
        assert found[source].level == 'pass', found[source]
    for subject in ('frames', 'pictures'):
        assert found[subject].level == 'pass', found[subject]
    for subject in ('wrist rate', 'wrist stamps', 'ee_pose skew', 'camera delay', 'clocks'):
        assert found[subject].level != 'fail', found[subject]  # a busy machine delays messages
    assert rig.sheet.read_bytes().startswith(b'\x89PNG')
    # a picture of squares is unlike what the policy was trained on
    assert found['wrist view'].level == 'warn'


def test_a_camera_without_a_publisher_names_what_to_pass(rig):
    robot = rig.robot
    robot.cameras = {'third_person'}
    robot.destroy_publisher(robot.image_publishers['wrist'])
    other = robot.create_publisher(Image, 'hand_camera/image_raw', 1)
    rig.until(lambda: not robot.count_publishers('wrist/image'), 'the end of the publisher')
    found = rig.examine()
    is_failed(found['wrist'], 'no node publishes', f'wrist_image:={other.topic_name}')


def test_another_type_and_several_publishers(rig):
    robot = rig.robot
    robot.create_publisher(Image, 'third_person/image', 1)
    robot.destroy_publisher(robot.image_publishers['wrist'])
    robot.cameras = {'third_person'}
    rig.until(lambda: not robot.count_publishers('wrist/image'), 'the end of the publisher')
    with stranger(rig, CompressedImage, 'wrist/image', 'camera'):
        found = rig.examine()
    is_failed(found['third_person'], '2 publishers', 'allow_several_publishers')
    is_failed(found['wrist'], 'CompressedImage', 'image_transport:=compressed')


def test_qos_that_does_not_match(rig):
    robot = rig.robot
    robot.destroy_publisher(robot.instruction_publisher)
    effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    robot.instruction_publisher = robot.create_publisher(String, 'instruction', effort)
    rig.until(lambda: robot.count_publishers('instruction') == 1, 'one publisher')
    is_failed(rig.examine()['instruction'], 'QoS does not match')


def test_old_stamps_and_another_frame(rig):
    robot = rig.robot

    def alter(message):
        if isinstance(message, PoseStamped):
            message.header.frame_id = 'fr3_link0'

    robot.alter_state = alter
    robot.alter = lambda message: setattr(message.header.stamp, 'sec', message.header.stamp.sec - 3)
    found = rig.examine()
    is_failed(found['wrist stamps'], 'age 3.', 'clocks')
    is_failed(found['frames'], 'fr3_link0', 'base_frame')
    assert found['clocks'].level == 'warn'


def test_frozen_and_equal_pictures(rig):
    rig.robot.pictures = itertools.repeat(PICTURES[0])
    found = rig.examine(2.0, max_frozen=0.5)
    is_failed(found['wrist'], 'camera_frozen')
    is_failed(found['wrist view'], 'cameras_equal')


def test_fingers_that_no_hand_has(rig):
    rig.robot.alter_state = lambda message: (
        setattr(message, 'position', [40.0, 40.0]) if hasattr(message, 'position') else None
    )
    is_failed(rig.examine()['gripper_state'], 'millimetres?')


@pytest.mark.parametrize(
    ('text', 'level'),
    [('pick up the milk', 'pass'), ('pick up the unicorn', 'warn'), ('Zähne putzen', 'fail')],
)
def test_an_instruction_is_read(rig, text, level):
    robot = rig.robot
    timer = robot.create_timer(0.1, lambda: robot.say(text))
    found = rig.examine()
    robot.destroy_timer(timer)
    assert found['instruction'].level == level


def test_simulated_time_without_a_clock(rig):
    robot = rig.robot
    robot.destroy_publisher(robot.clock_publisher)
    rig.until(lambda: not robot.count_publishers('/clock'), 'no clock')
    found = rig.examine(use_sim_time=True)
    is_failed(found['clock'], 'nobody publishes')
    is_failed(found['wrist stamps'], 'use_sim_time')


def test_launch_arguments_become_ros_arguments():
    assert ros_arguments([]) == []
    given = ['wrist_image:=/a/b', 'third_person/image:=/c', 'base_frame:=fr3_link0', 'threads:=2']
    assert ros_arguments([*given, 'namespace:=left', 'params_file:=p.yaml']) == [
        '--ros-args',
        *('-r', 'wrist/image:=/a/b', '-r', 'third_person/image:=/c'),
        *('-p', 'base_frame:=fr3_link0', '-p', 'threads:=2'),
        *('-r', '__ns:=/left', '--params-file', 'p.yaml'),
    ]
    with pytest.raises(ArgumentError, match='NAME:=VALUE'):
        ros_arguments(['wrist_image'])
    twice = ['wrist/image:=/a', 'threads:=1', 'wrist_image:=/b', 'threads:=2']
    assert ros_arguments(twice) == ['--ros-args', '-r', 'wrist/image:=/b', '-p', 'threads:=2']
    assert remapping('wrist/image', '/c') == 'wrist_image:=/c'
    assert remapping('front/image', '/c').startswith('front/image:=/c (cameras.front.topic')


def test_the_command_takes_the_launch_arguments(rig, bundled_policy, tmp_path, capsys):
    rig.robot.feeding = True
    out = tmp_path / 'found.json'
    arguments = ['--live', '--seconds', '1', '--policy', str(bundled_policy), '--json', str(out)]
    arguments += ['--png', str(tmp_path / 'seen.png'), '--hand', 'open']
    assert main(['doctor', *arguments, f'namespace:={rig.namespace}', 'base_frame:=table']) == 1
    assert "ee_pose is in 'panda_link0', but base_frame is 'table'" in capsys.readouterr().out
    assert (tmp_path / 'seen.png').exists()
    found = json.loads(out.read_text())['findings']
    failed = {each['subject'] for each in found if each['level'] == 'fail'}
    assert 'frames' in failed
    assert not failed & {'third_person', 'wrist', 'ee_pose', 'gripper sense'}


def test_the_command_refuses_an_unknown_parameter(bundled_policy, capsys):
    arguments = ['doctor', '--live', '--policy', str(bundled_policy), 'base_fame:=table']
    assert main(arguments) == 1
    assert 'unknown parameter base_fame' in capsys.readouterr().err
