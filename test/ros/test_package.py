"""What is installed, and that all of it says the same."""

import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

import pytest

import lightvla_ros
from lightvla_ros import msg
from lightvla_ros.nodes.bridge_parameters import BRIDGE_PARAMETERS
from lightvla_ros.nodes.executor_parameters import EXECUTOR_PARAMETERS
from lightvla_ros.nodes.parameters import Parameter, ParameterError, ParameterTable
from lightvla_ros.nodes.policy_parameters import POLICY_PARAMETERS
from lightvla_ros.nodes.reference import updated

ROOT = Path(__file__).resolve().parents[2]


def test_one_version_number():
    package = ElementTree.parse(ROOT / 'package.xml').find('version').text
    changelog = re.search(r'^(\d+\.\d+\.\d+)', (ROOT / 'CHANGELOG.rst').read_text(), re.M)[1]
    assert {package, changelog, version('lightvla_ros')} == {lightvla_ros.__version__}


@pytest.mark.parametrize(
    ('message', 'fields'),
    [
        (
            msg.ActionChunk,
            'header schema_version reference child_frame_id period valid_until steps gripper '
            'sequence session_id instruction first_step clamped reason stats',
        ),
        (
            msg.InferenceStats,
            'observation_stamp camera_skew observation_age preprocess_time inference_time '
            'postprocess_time cameras tokens_total tokens_kept backend precision',
        ),
        (
            msg.Inference,
            'header policy backend precision instruction cameras image_topics image_stamps '
            'position quaternion fingers error kept_patches actions',
        ),
        (msg.VlaStatus, 'header state reason instruction chunks'),
    ],
)
def test_fields_of_the_messages(message, fields):
    assert list(message.get_fields_and_field_types()) == fields.split()


@pytest.mark.parametrize('folder', [ROOT, Path('/')], ids=['root', 'elsewhere'])
def test_messages_are_found(folder):
    command = 'import lightvla_ros.msg, lightvla_ros.contract; lightvla_ros.msg.ActionChunk()'
    subprocess.run([sys.executable, '-c', command], cwd=folder, check=True)


# What a robot's computer need not have
ABSENT = (
    'h5py', 'libero', 'matplotlib', 'mujoco', 'onnx', 'onnx_ir', 'onnxscript', 'openvino', 'peft',
    'PIL', 'rclpy', 'robosuite', 'safetensors', 'scipy', 'tensorboard', 'tensorrt', 'torch', 'tqdm',
    'transformers',
)  # fmt: skip


@pytest.mark.parametrize(
    'work',
    [
        'import lightvla_ros; lightvla_ros.Policy, lightvla_ros.Observation',
        'import lightvla_ros.runtime.inbox, lightvla_ros.runtime.supervisor',
        'import lightvla_ros.engine.onnxruntime, lightvla_ros.engine.tensorrt.engine',
        'import lightvla_ros.export.tensorrt.build',  # engines are built on the robot's computer
        'from lightvla_ros.cli import main; main([])',
        'from lightvla_ros.cli import main; '
        'assert main(["verify", "models/libero_tiny", "--engine", "onnxruntime"]) == 0',
    ],
)
def test_a_robot_needs_neither_torch_nor_a_simulator_nor_ros(work):
    """They are made impossible to import, as where they are not installed."""
    program = f'import sys; sys.modules |= dict.fromkeys({ABSENT!r}); {work}'
    done = subprocess.run(
        [sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_tables_of_the_reference_are_current():
    page = (ROOT / 'docs/reference/nodes.md').read_text()
    assert updated(page) == page, 'run `make docs`'


@pytest.mark.parametrize('file', ['franka_panda.param.yaml', 'libero.param.yaml'])
def test_shipped_parameters_are_known_and_allowed(file):
    import yaml

    sections = yaml.safe_load((ROOT / 'config' / file).read_text())
    for node, section in sections.items():
        table = EXECUTOR_PARAMETERS if 'chunk_executor' in node else POLICY_PARAMETERS
        for name, value in section['ros__parameters'].items():
            if name == 'use_sim_time':
                continue
            row = next(row for row in table.rows if row.name == name)
            assert type(value) is type(row.default)
            assert row.fault(value) is None


def test_defaults_are_allowed():
    for table in (POLICY_PARAMETERS, EXECUTOR_PARAMETERS, BRIDGE_PARAMETERS):
        for row in table.rows:
            assert row.fault(row.default) is None, row.name
            assert row.description.endswith(('.', ']'))


def test_parameter_check_that_raises_is_an_answer():
    """An exception in a parameter callback would end rclpy's spin."""
    from rclpy.exceptions import InvalidHandle
    from rclpy.node import Node
    from rclpy.parameter import Parameter as RosParameter

    node = Node('raising')
    table = ParameterTable([Parameter('width', 1.0, 'A width [m].', 0.0, 2.0, read_only=False)])

    def check(values):
        if values.width == 2.0:
            raise ZeroDivisionError('told to')
        return 'too wide' if values.width > 1.5 else None

    values = table.declare(node, check=check)
    result = node.set_parameters([RosParameter('width', value=2.0)])[0]
    assert (result.successful, 'told to' in result.reason) == (False, True)
    assert not node.set_parameters([RosParameter('width', value=1.75)])[0].successful
    assert node.set_parameters([RosParameter('width', value=0.5)])[0].successful
    assert values.width == 0.5
    node.destroy_node()
    other = Node('other')
    with pytest.raises(ParameterError, match='too small'):
        table.declare(other, check=lambda values: 'too small')
    with pytest.raises(InvalidHandle):  # it must not wait for the garbage collector
        other.get_name()


def test_bench_node_measures_what_the_page_costs():
    """In a process of its own, which initialises rclpy."""
    program = [sys.executable, '-m', 'lightvla_ros.cli', 'bench', 'node', '--view', '--seconds']
    done = subprocess.run([*program, '1', '--json'], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert report['events_per_second'] > 1  # 10 where the machine is not busy
    assert 0 < report['alone'][0] < 4
    assert 0 < report['watched'][0] < 4


def test_bench_node_measures_the_real_node():
    """In a process of its own, which initialises rclpy."""
    program = [
        sys.executable,
        '-m',
        'lightvla_ros.cli',
        'bench',
        'node',
        '--seconds',
        '1',
        '--record',
        '--json',
    ]
    done = subprocess.run(program, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    for each in (*report['plain'], *report['recording']):
        assert each['chunks'] > 5
        assert each['overhead_ms']['p50'] > 0
    assert int(report['recording'][0]['recorded']['written']) > 50
    assert report['overhead_p50_ms']['ratio'] > 0
