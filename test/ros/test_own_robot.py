"""Own robots with one and three cameras, from their YAML to chunks of a running node.

Data -> training of two steps -> export -> verify -> node on ONNX Runtime, with the files that
`lightvla new-policy` wrote. The three cameras' data are bags, and the node runs on the topics of
one of them.
"""

import ast
import itertools
import json
import shlex
import threading
import time
from contextlib import contextmanager

import data_rig
import numpy as np
import pytest
import train_rig
import yaml
from geometry_msgs.msg import PoseStamped
from lightvla_ros.msg import ActionChunk, VlaStatus
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.serialization import deserialize_message
from robots import ROBOT
from sensor_msgs.msg import Image, JointState
from spun_nodes import SpunNodes
from std_msgs.msg import String

from lightvla_ros.cli import main
from lightvla_ros.contract import load_manifest
from lightvla_ros.nodes.chunk_executor_node import ChunkExecutorNode
from lightvla_ros.nodes.conversions import image_to_message, pose_to_message
from lightvla_ros.nodes.policy_node import PolicyNode
from lightvla_ros.policy.state import RobotState

pytest.importorskip('torch')
TASK = 'stack the red cube on the blue one'
CAMERA = {'mount': 'scene', 'size': [480, 640]}
_names = itertools.count()


def one_camera():
    """An arm with one camera, and a policy that does not read its hand."""
    camera = CAMERA | {'topic': '/front/image_raw', 'fit': 'crop'}
    proprio = {'ee_axis_angle': 'rad', 'ee_position': 'm'}
    return ROBOT | {'cameras': {'front': camera}, 'proprio': proprio}


def three_cameras():
    """An arm with three cameras, whose steps pull as a spring."""
    topics = (*data_rig.TOPICS[:1], '/side/image', data_rig.TOPICS[1])
    names = ('front', 'side', 'hand')
    return ROBOT | {
        'control_period': 0.05,
        'cameras': {
            name: CAMERA | {'topic': topic, 'mount': 'wrist' if name == 'hand' else 'scene'}
            for name, topic in zip(names, topics, strict=True)
        },
        'proprio': {
            part: unit
            for part, unit in zip(
                ('ee_position', 'ee_axis_angle', 'gripper_qpos'), ('m', 'rad', 'm'), strict=True
            )
        },
        'action': {'execution': 'spring'},
        'frames': {'base': 'base', 'ee': 'tcp'},
        'topics': {'ee_pose': data_rig.TOPICS[2], 'gripper_state': data_rig.TOPICS[3]},
    }


def command(text):
    assert main(shlex.split(text)) == 0, text


def deployed(folder, robot, data, mapping):
    """Go through the documented commands; return the policy's folder and the robot's files."""
    (folder / 'mine.yaml').write_text(yaml.safe_dump(robot, sort_keys=False))
    command(f'new-policy {folder}/mine.yaml --out {folder}/arm')
    (folder / 'arm/data.yaml').write_text(
        yaml.safe_dump(mapping | {'robot': 'robot.yaml'}, sort_keys=False)
    )
    document = train_rig.document(data, steps=2, log_every=1)
    document['data']['paths'] = [{'path': str(data), 'mapping': f'{folder}/arm/data.yaml'}]
    (folder / 'train.yaml').write_text(yaml.safe_dump(document))
    command(f'train --config {folder}/train.yaml --out {folder}/run')
    command(
        f'export --policy {folder}/run/policy --observations {folder}/run/observations.npz '
        f'--out {folder}/deployed'
    )
    command(f'verify {folder}/deployed --engine onnxruntime')
    return folder / 'deployed', folder / 'arm'


@contextmanager
def feeding(feed):
    """Feed in a thread of its own."""
    ended = threading.Event()

    def run():
        while not ended.wait(0.05):
            feed()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class Arm(Node):
    """What a robot publishes, and what is heard of the policy."""

    def __init__(self, namespace):
        super().__init__('arm', namespace=namespace)
        self.chunks, self.statuses = [], []
        self.create_subscription(ActionChunk, 'lightvla/action_chunk', self.chunks.append, 10)
        latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.create_subscription(VlaStatus, 'lightvla/status', self.statuses.append, latched)
        self.said = self.create_publisher(String, 'instruction', 10)
        self.named = {}

    def send(self, topic, message, stamp=None):
        if topic not in self.named:
            self.named[topic] = self.create_publisher(type(message), topic, 5)
        message.header.stamp = (stamp or self.get_clock().now()).to_msg()
        self.named[topic].publish(message)

    def moves(self):
        return [chunk for chunk in self.chunks if chunk.steps]


class Running(SpunNodes):
    """The policy node as the generated launch file starts it, and the arm."""

    def __init__(self, policy, files):
        namespace = f'/own{next(_names)}'
        tree = ast.parse((files / 'own_robot.launch.py').read_text())
        assigned = {e.targets[0].id: e.value for e in tree.body if isinstance(e, ast.Assign)}
        remaps = ast.literal_eval(assigned['CAMERAS'])
        pairs = zip(assigned['ARGUMENTS'].keys, assigned['ARGUMENTS'].values, strict=True)
        arguments = {k.value: v.value for k, v in pairs if isinstance(v, ast.Constant)}
        remaps |= {name: arguments[name] for name in ('ee_pose', 'gripper_state')}
        # its topics in this test's namespace
        self.rules = [f'{name}:={namespace}/{topic.lstrip("/")}' for name, topic in remaps.items()]
        self.cli = ['--ros-args', '--params-file', str(files / 'own_robot.param.yaml')]
        for rule in self.rules:
            self.cli += ['-r', rule]
        self.node = PolicyNode(
            namespace=namespace,
            cli_args=self.cli,
            parameter_overrides=[Parameter('policy', value=str(policy))],
        )
        self.arm = Arm(namespace)
        self.topics = {name: topic.lstrip('/') for name, topic in remaps.items()}
        self.spin(self.arm, self.node)

    def seen(self):
        return [(each.state, each.reason) for each in self.arm.statuses[-3:]]

    def __enter__(self):
        self.node.autostart()
        return self

    def __exit__(self, *_):
        self.stop_spinning()
        self.node.shut_down()
        self.node.destroy_node()
        self.arm.destroy_node()

    def examined(self, policy, files, feed, report):
        """Feed the arm's topics, and return what `lightvla doctor --live` says, worst last."""
        arguments = ['--live', '--seconds', '1', '--policy', str(policy), '--json', str(report)]
        arguments += [
            '--robot',
            str(files / 'robot.yaml'),
            '--png',
            str(report.with_suffix('.png')),
        ]
        with feeding(feed):
            main(['doctor', *arguments, *self.rules])
        found = json.loads(report.read_text())['findings']
        order = {'pass': 0, 'warn': 1, 'fail': 2}
        found.sort(key=lambda each: order[each['level']])
        return {each['subject']: each for each in found}

    def first_chunk(self, feed, instruction):
        """Feed the arm's topics, give the instruction, and wait for steps."""
        deadline = time.monotonic() + 30
        while not self.arm.moves():
            assert time.monotonic() < deadline, self.seen()
            feed()
            self.arm.said.publish(String(data=instruction))
            time.sleep(0.05)
        return self.arm.moves()[0]


def test_one_camera(tmp_path, capsys):
    data = data_rig.write_hdf5(tmp_path / 'own.hdf5', (12, 13, 12), ('front',), TASK)
    mapping = data_rig.mapping('hdf5', size=[24, 32])
    mapping |= {'cameras': {'front': 'images/front'}}
    del mapping['state']['gripper'], mapping['rate'], mapping['execution']
    policy, files = deployed(tmp_path, one_camera(), data, mapping)
    manifest = load_manifest(policy)
    assert manifest.action.chunk_length == 5
    assert manifest.proprio.layout == ('ee_axis_angle', 'ee_position')
    assert (manifest.cameras[0].fit, manifest.cameras[0].aspect) == ('crop', 1.0)
    assert not manifest.provenance['config']['model']['changes'].get('cameras')
    state = RobotState(np.array([0, 0, 0.5]), np.array([1.0, 0, 0, 0]))
    pose = pose_to_message(state, 0, 'arm_base')
    pictures = np.random.default_rng(0)
    with Running(policy, files) as running:

        def feed():
            picture = pictures.integers(0, 256, (48, 64, 3), np.uint8)
            running.arm.send('front/image_raw', image_to_message(picture, 0, 'front'))
            running.arm.send('arm/pose', pose)

        chunk = running.first_chunk(feed, TASK)
        assert len(chunk.steps) == 5
        assert (chunk.header.frame_id, chunk.child_frame_id) == ('arm_base', 'arm_tcp')
        assert list(chunk.stats.cameras) == ['front']
        found = running.examined(policy, files, feed, tmp_path / 'found.json')
        for subject in ('front', 'ee_pose', 'frames', 'pictures'):
            assert found[subject]['level'] == 'pass', found[subject]
        assert 'front view' in found
        assert 'gripper_state' not in found  # this policy does not read the hand
        # words that the data do not have are told
        said = running.node.runner.policy.unknown_words('stack the milk')
        assert said == ('milk',)
    executor = ChunkExecutorNode(namespace='/own_x', cli_args=running.cli)
    executor.destroy_node()


def test_three_cameras_from_a_bag_to_a_node_on_its_topics(tmp_path):
    rosbags = pytest.importorskip('rosbags.highlevel')
    robot = three_cameras()
    cameras = {name: each['topic'] for name, each in robot['cameras'].items()}
    for index, rows in enumerate((14, 12, 13)):
        data_rig.write_bag(tmp_path / f'bags/bag{index}', rows, cameras=tuple(cameras.values()))
    mapping = data_rig.mapping('rosbag', cameras=cameras, size=[24, 32], instruction=TASK)
    del mapping['rate'], mapping['execution']
    policy, files = deployed(tmp_path, robot, tmp_path / 'bags', mapping)
    manifest = load_manifest(policy)
    assert [camera.name for camera in manifest.cameras] == ['front', 'side', 'hand']
    assert manifest.tokens.buckets[-1] == 3 * 16
    kinds = {'Image': Image, 'PoseStamped': PoseStamped, 'JointState': JointState}
    wanted = {*cameras.values(), *robot['topics'].values()}
    with rosbags.AnyReader([tmp_path / 'bags/bag0']) as reader:
        played = [
            (link.topic, deserialize_message(bytes(data), kinds[link.msgtype.split('/')[-1]]))
            for link, _, data in reader.messages()
            if link.topic in wanted
        ]
    random = np.random.default_rng(0)
    with Running(policy, files) as running:

        def feed():
            """Play the bag's messages as of now; a made-up picture has a camera's noise."""
            now = running.arm.get_clock().now()
            for topic, message in played[:: len(played) // 20]:
                running.arm.send(topic.lstrip('/'), message, now)
            for topic in wanted:
                message = next(each for name, each in played if name == topic)
                if isinstance(message, Image):
                    noise = random.integers(0, 30, len(message.data), np.uint8)
                    message.data = (np.asarray(message.data) // 2 + noise).tobytes()
                running.arm.send(topic.lstrip('/'), message, now)

        chunk = running.first_chunk(feed, TASK)
        assert len(chunk.steps) == 8
        assert chunk.header.frame_id == 'base'
        assert list(chunk.stats.cameras) == ['front', 'side', 'hand']
        found = running.examined(policy, files, feed, tmp_path / 'found.json')
        for subject in ('front', 'side', 'hand', 'ee_pose', 'gripper_state', 'pictures'):
            assert found[subject]['level'] == 'pass', found[subject]
        assert {'front view', 'side view', 'hand view', 'camera delay'} <= found.keys()
