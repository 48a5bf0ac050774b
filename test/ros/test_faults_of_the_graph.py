"""Who publishes on the node's topics: two at once, nobody, or something of another type."""

import re
import shlex

import pytest
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from lightvla_ros.msg import ActionChunk, VlaStatus
from rclpy.parameter import Parameter
from rig import rig
from sensor_msgs.msg import CompressedImage, Image, JointState
from spun_nodes import stranger
from std_msgs.msg import String

from lightvla_ros.files import resource
from lightvla_ros.nodes.launch_arguments import PARAMETERS, TOPICS
from lightvla_ros.nodes.policy_node import PolicyNode
from lightvla_ros.policy.policy import Policy

WAITING, RUNNING, HOLDING = VlaStatus.WAITING, VlaStatus.RUNNING, VlaStatus.HOLDING


def line_with(r, *words):
    """Wait for a log line that holds all of these words."""
    found = []

    def there():
        found[:] = [line for line in list(r.robot.logs) if all(word in line for word in words)]
        return found

    r.until(there, f'a line with {words}')
    return found[0]


@pytest.mark.parametrize(
    ('kind', 'topic', 'source'),
    [
        (Image, 'third_person/image', 'third_person'),
        (Image, 'wrist/image', 'wrist'),
        (PoseStamped, 'ee_pose', 'ee_pose'),
        (JointState, 'gripper_state', 'gripper_state'),
        (String, 'instruction', 'instruction'),
        (ActionChunk, 'lightvla/action_chunk', 'action_chunk'),
        (VlaStatus, 'lightvla/status', 'status'),
    ],
    ids=lambda value: value if isinstance(value, str) and '/' not in value else '',
)
def test_second_publisher_is_a_hold_with_names(bundled_policy, kind, topic, source):
    with rig(bundled_policy, replan_steps=1) as r:
        r.matched_user()
        r.run()
        with stranger(r, kind, topic):
            r.until_state(HOLDING, f'two_publishers:{source}')
            # the hold is another topic's message, and may come a moment after the status
            r.until(lambda: not r.robot.chunks[-1].steps, 'the hold')
            line_with(r, '2 publishers on', f'{r.namespace}/{topic}', '/rosbag2_player')
            r.settle()  # what was begun before is finished, and its chunk is not sent
            calls = r.engine.calls
            r.settle()
            assert not r.robot.chunks[-1].steps
            assert r.engine.calls == calls, 'nothing may be computed of mixed inputs'
            assert len(r.robot.holds()) == 1
        r.until_state(RUNNING)


def test_second_publisher_may_be_allowed_on_inputs_alone(bundled_policy):
    with rig(bundled_policy, replan_steps=1, allow_several_publishers=True) as r:
        r.run()
        with stranger(r, Image, 'wrist/image'):
            r.settle()
            assert r.robot.state == (RUNNING, '')
            with stranger(r, ActionChunk, 'lightvla/action_chunk', 'another_policy'):
                r.until_state(HOLDING, 'two_publishers:action_chunk')
            # and it can be taken back while running
            r.node.set_parameters([Parameter('allow_several_publishers', value=False)])
            r.until_state(HOLDING, 'two_publishers:wrist')


def test_second_node_of_the_same_name_is_noticed(bundled_policy):
    with rig(bundled_policy, replan_steps=1) as r:
        r.matched_user()
        r.run()
        twin = PolicyNode(
            namespace=r.namespace,
            parameter_overrides=[Parameter('policy', value=str(bundled_policy))],
        )
        try:
            r.until_state(HOLDING, 'two_publishers:status')
            line = line_with(r, '2 publishers on', f'{r.namespace}/lightvla/status')
            assert 'Give a second robot another namespace' in line
        finally:
            twin.destroy_node()
        r.until_state(RUNNING)


def test_all_missing_inputs_are_named_with_topics_and_cures(bundled_policy):
    with rig(bundled_policy, autostart=False) as r:
        r.matched_user()
        robot = r.robot
        for publisher in (*robot.image_publishers.values(), robot.pose_publisher):
            robot.destroy_publisher(publisher)
        camera = '/camera/camera/color/image_raw'
        seen = []
        robot.create_subscription(DiagnosticArray, '/diagnostics', seen.append, 10)
        with stranger(r, Image, camera):
            r.node.autostart()
            robot.say('pick up the milk')
            r.until_state(WAITING, 'camera_missing:third_person,wrist')
            cure = f'there is {camera}: pass third_person_image:={camera}'
            line = line_with(r, 'waiting', cure)
            for topic, kind in (
                ('third_person/image', 'sensor_msgs/msg/Image'),
                ('wrist/image', 'sensor_msgs/msg/Image'),
                ('ee_pose', 'geometry_msgs/msg/PoseStamped'),
                ('gripper_state', 'sensor_msgs/msg/JointState'),
            ):
                assert f'{r.namespace}/{topic} ({kind})' in line
            assert 'kept_patches' not in line, 'its own pictures are no camera'
            assert '/robot publishes there but no good message has come' in line

            def told():
                values = [v for m in list(seen) for s in m.status for v in s.values]
                return any(v.key == 'advice' and camera in v.value for v in values)

            r.until(told, 'the advice in the diagnostics')


def test_topic_of_another_type_is_named_with_the_cure(bundled_policy):
    """A compressed camera on the raw topic: no event of rclpy fires for it."""
    with rig(bundled_policy, autostart=False) as r:
        r.matched_user()
        r.robot.destroy_publisher(r.robot.image_publishers['wrist'])
        with stranger(r, CompressedImage, 'wrist/image', 'camera'):
            r.node.autostart()
            r.until_state(WAITING, 'wrong_type:wrist')
            line_with(
                r,
                f'{r.namespace}/wrist/image (sensor_msgs/msg/Image)',
                f'{r.namespace}/camera publishes sensor_msgs/msg/CompressedImage',
                'image_transport:=compressed',
            )


def test_camera_that_publishes_compressed_images_alone(bundled_policy):
    with rig(bundled_policy, autostart=False) as r:
        r.matched_user()
        r.robot.destroy_publisher(r.robot.image_publishers['wrist'])
        with stranger(r, CompressedImage, 'hand/image_raw/compressed', 'camera'):
            r.node.autostart()
            there = f'{r.namespace}/hand/image_raw'
            line_with(r, f'there is {there}: pass image_transport:=compressed wrist_image:={there}')


def test_raw_camera_on_a_compressed_topic(bundled_policy):
    with rig(bundled_policy, autostart=False, image_transport='compressed') as r:
        r.matched_user()
        with stranger(r, Image, 'wrist/image/compressed', 'camera'):
            r.node.autostart()
            r.until_state(WAITING, 'wrong_type:wrist')
            line = line_with(r, f'{r.namespace}/camera publishes sensor_msgs/msg/Image there')
            topic = f'{r.namespace}/wrist/image/compressed'
            assert f'pass image_transport:=raw wrist_image:={topic}' in line


@pytest.mark.parametrize(
    ('parameters', 'argument'),
    [
        ({'policy': ''}, 'the parameter `policy` (launch argument `checkpoint`) is empty'),
        ({'policy': '/no/such/folder'}, 'the parameter `policy` (launch argument `checkpoint`)'),
        ({'provider': 'NoProvider'}, 'the parameter `provider` (launch argument `device`)'),
        ({'replan_steps': 9}, 'the parameter `replan_steps` (launch argument `params_file`'),
    ],
    ids=['none', 'missing', 'provider', 'steps'],
)
def test_cannot_configure_names_the_launch_argument(bundled_policy, parameters, argument):
    with rig(bundled_policy, autostart=False, load=Policy.load, **parameters) as r:
        r.matched_user()
        r.node.autostart()
        assert argument in line_with(r, 'cannot configure')


def test_a_commanded_pose_is_never_suggested_as_the_measured_one(bundled_policy):
    with rig(bundled_policy, autostart=False) as r:
        r.matched_user()
        r.robot.destroy_publisher(r.robot.pose_publisher)
        target = f'{r.namespace}/target_pose'
        with stranger(r, PoseStamped, target):
            r.until(lambda: r.node.count_publishers(target), target)
            r.node.autostart()
            assert target not in line_with(r, 'waiting', f'{r.namespace}/ee_pose')


def test_launch_arguments_that_messages_name_are_there():
    text = resource('launch/franka_panda.launch.py').read_text()
    declared = set(re.findall(r"argument\(\s*'(\w+)'", text))
    named = {*PARAMETERS.values(), *TOPICS.values(), 'params_file'}
    assert named <= declared
    for name, argument in PARAMETERS.items():
        assert f"'{name}': value('{argument}')" in text
    for topic, argument in TOPICS.items():
        assert f"'{topic}'" in text
        assert topic.replace('/', '_') == argument, 'the launch file maps them so'


def test_waiting_for_an_instruction_gives_a_line_to_paste(bundled_policy):
    with rig(bundled_policy) as r:
        r.matched()
        r.matched_user()
        r.robot.feeding = True
        r.until_state(WAITING, 'no_instruction')
        line = line_with(r, 'waiting: no_instruction', 'ros2 topic pub')
        words = shlex.split(line[line.index('ros2 topic pub') :])
        assert words[:-1] == [
            *('ros2', 'topic', 'pub', '--once'),
            f'{r.namespace}/instruction',
            'std_msgs/msg/String',
        ]
        r.robot.say(yaml.safe_load(words[-1])['data'])
        r.until_state(RUNNING)
