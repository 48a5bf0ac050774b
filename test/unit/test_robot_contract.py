"""A robot's contract: what it refuses, what becomes of it, and `lightvla new-policy`."""

import ast
import shlex

import data_rig
import pytest
import yaml
from robots import ROBOT

from lightvla_ros.cli import main
from lightvla_ros.cli.new_policy import asked
from lightvla_ros.contract.document import manifest_document
from lightvla_ros.contract.libero import LIBERO
from lightvla_ros.contract.robot import read_robot, robot_document, robot_from
from lightvla_ros.demonstrations.mapping import read_mapping
from lightvla_ros.demonstrations.reader import read_demonstrations
from lightvla_ros.errors import ArgumentError, ConfigError
from lightvla_ros.policy.observation import Observation
from lightvla_ros.policy.policy import Policy
from lightvla_ros.runtime.own_robot import LAUNCH, PARAMETERS, parameters


def changed(**changes):
    """The contract's document with fields replaced, by path with dots."""
    document = yaml.safe_load(yaml.safe_dump(ROBOT))
    for path, value in changes.items():
        *parts, last = path.split('__')
        place = document
        for part in parts:
            place = place[part]
        place[last] = value
    return document


def test_a_contract_survives_being_written():
    robot = robot_from(ROBOT)
    assert robot_from(robot_document(robot)) == robot
    assert robot_from(robot_document(LIBERO)) == LIBERO


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        ({'cameras': {}}, 'cameras: 0; 1 to 8 are needed'),
        ({'cameras__front__mount': 'table'}, "cameras.front.mount 'table' is not one of scene"),
        ({'cameras__front__rotate': 90}, 'cameras.front.rotate 90 is not 0 or 180; let the driver'),
        ({'cameras__front__size': [480]}, 'cameras.front.size [480] must be height and width'),
        ({'cameras__front__size': [480, 480]}, 'width / height is front 1, hand 1.33'),
        (
            {'cameras__front__mount': 'wrist', 'cameras__hand__mount': 'scene'},
            'those at the wrist must come last',
        ),
        ({'cameras__front__fit': 'squeeze'}, "cameras.front.fit 'squeeze' is not one of stretch"),
        ({'proprio': {'joints': 'rad'}}, 'proprio.joints is unknown; there are: ee_position'),
        ({'proprio': {'ee_position': 'mm'}}, "proprio.ee_position.unit 'mm': ROS's messages are"),
        ({'proprio': {'ee_position': {'unit': 'm', 'low': [0]}}}, 'must be 3 numbers each'),
        ({'action__frame': 'tool'}, "action.frame 'tool': a policy steps in the base frame"),
        ({'action__execution': 'torque'}, "action.execution 'torque' is not one of spring"),
        ({'action__chunk_length': 65}, 'action.chunk_length 65 is not 1 to 64'),
        ({'gripper__joints': ['one']}, 'the state needs two finger joints'),
        ({'gripper__closed': 1.0}, 'open and closed must be two different numbers'),
        ({'control_period': 0.0}, 'control_period 0.0 s must be above 0'),
        ({'workspace__low': [1, 0, 0]}, 'workspace: low and high must be three numbers'),
        ({'frames__base': ''}, 'frames.base is empty'),
        ({'colour': 'red'}, 'colour is unknown; there are: action, cameras'),
        ({'quaternion_reference': [0, 0, 0, 0]}, 'quaternion_reference must be four numbers'),
    ],
)
def test_an_invalid_contract_names_field_and_cure(tmp_path, changes, said):
    path = tmp_path / 'robot.yaml'
    path.write_text(yaml.safe_dump(changed(**changes)))
    with pytest.raises(ConfigError) as error:
        read_robot(path)
    assert said in str(error.value)
    assert str(error.value).startswith(f'{path}: ')
    assert '\n' not in str(error.value)


def test_the_manifest_says_what_the_contract_says():
    document = manifest_document('made', robot_from(ROBOT), 64, 16)
    assert [each['name'] for each in document['cameras']] == ['front', 'hand']
    assert document['cameras'][1]['rotate_degrees'] == 180
    assert document['proprio']['layout'] == ['ee_position', 'gripper_qpos']
    # the workspace's until data say more, and the fingers' reach
    assert document['proprio']['q01'] == [0.2, -0.3, 0.0, 0.0, -0.05]
    action = document['action']
    assert (action['chunk_length'], action['control_period']) == (5, 0.1)
    assert (action['execution'], action['reference']) == ('displacement', 'previous_target')
    assert (action['gripper_open'], action['gripper_closed']) == (1.0, -1.0)


def test_new_policy_writes_topics_frames_and_bounds(tmp_path, capsys):
    given = tmp_path / 'mine.yaml'
    given.write_text('# my arm\n' + yaml.safe_dump(ROBOT))
    out = tmp_path / 'arm'
    assert main(['new-policy', str(given), '--out', str(out)]) == 0
    assert f'ros2 launch {out}/own_robot.launch.py checkpoint:=' in capsys.readouterr().out
    assert (out / 'robot.yaml').read_text().startswith('# my arm\n')
    tree = ast.parse((out / LAUNCH).read_text())
    found = {each.targets[0].id: each.value for each in tree.body if isinstance(each, ast.Assign)}
    assert ast.literal_eval(found['CAMERAS']) == {
        'front/image': '/front/image_raw',
        'hand/image': 'hand/image',
    }
    pairs = zip(found['ARGUMENTS'].keys, found['ARGUMENTS'].values, strict=True)
    arguments = {name.value: value for name, value in pairs}
    assert arguments['base_frame'].value == 'arm_base'
    assert arguments['ee_pose'].value == '/arm/pose'
    content = yaml.safe_load((out / PARAMETERS).read_text())
    executor = content['/**/chunk_executor']['ros__parameters']
    assert executor['box_min'] == [0.2, -0.3, 0.0]
    assert executor['execution'] == 'displacement'
    policy = content['/**/lightvla']['ros__parameters']
    assert policy['finger_joints'] == ['left', 'right']
    assert policy['max_step_translation'] == 0.02  # 0.2 m/s for 0.1 s
    assert executor['max_step_translation'] > policy['max_step_translation']


def test_new_policy_writes_again_from_its_own_folder_but_over_no_other_contract(tmp_path, capsys):
    given = tmp_path / 'mine.yaml'
    given.write_text(yaml.safe_dump(ROBOT))
    out = tmp_path / 'arm'
    assert main(['new-policy', str(given), '--out', str(out)]) == 0
    own = out / 'robot.yaml'
    own.write_text(own.read_text().replace('arm_base', 'other_base'))
    assert main(['new-policy', str(own), '--out', str(out)]) == 0
    assert 'other_base' in (out / LAUNCH).read_text()
    assert main(['new-policy', str(given), '--out', str(out)]) == 2
    assert 'is there already' in capsys.readouterr().err


def test_an_arm_that_is_too_fast_for_the_executor_is_refused(tmp_path, capsys):
    given = tmp_path / 'mine.yaml'
    given.write_text(yaml.safe_dump(changed(speed__translation=3.0)))
    assert main(['new-policy', str(given), '--out', str(tmp_path / 'arm')]) == 1
    assert 'max_speed is 3.0; allowed is 0.001 to 1 m/s' in capsys.readouterr().err
    assert not (tmp_path / 'arm').exists()


def test_the_hand_of_a_contract_need_not_point_down():
    robot = robot_from(changed(quaternion_reference=[0, 0.7071, 0, 0.7071]))
    assert parameters(robot)[1]['approach_axis'] == [1.0, 0.0, 0.0]


def test_answers_make_a_contract(capsys):
    given = iter(['arm', 'fast', '10', '1', 'front', '', '', '240 320', *[''] * 30])
    questions = []

    def answer(question):
        questions.append(question)
        return next(given)

    robot = robot_from(asked(answer))
    assert (robot.name, robot.control_period) == ('arm', 0.1)
    assert list(robot.cameras) == ['front']
    assert robot.cameras['front'].size == (240, 320)
    assert robot.cameras['front'].topic == '/front/image_raw'
    assert len(questions) == len(set(questions)) + 1  # a wrong answer is asked again
    assert 'could not convert' in capsys.readouterr().out


def test_answers_that_end_early_point_to_the_file():
    def answer(question):
        raise EOFError

    with pytest.raises(ArgumentError, match='give the contract as FILE'):
        asked(answer)


def mapped(folder, **changes):
    """Read a data YAML that names the contract; the recording has its two cameras."""
    (folder / 'robot.yaml').write_text(yaml.safe_dump(changed(cameras__front__topic='')))
    content = data_rig.mapping('hdf5', robot='robot.yaml')
    content['cameras'] = {'front': 'images/front', 'hand': 'images/hand'}
    del content['rate'], content['execution']
    (folder / 'data.yaml').write_text(yaml.safe_dump(content | changes))
    return read_mapping(folder / 'data.yaml')


def test_data_take_rate_execution_units_and_state_from_the_contract(tmp_path):
    mapping = mapped(tmp_path)
    assert (mapping.rate, mapping.execution) == (10, 'displacement')
    path = data_rig.write_hdf5(tmp_path / 'own.hdf5')
    frames = read_demonstrations(path, mapping=mapping).load(progress=False)
    assert frames.robot == mapping.robot
    assert frames.images.shape[1:] == (2, *data_rig.SIZE, 3)
    assert frames.proprio.shape[1] == 5
    assert frames.chunks.shape[1:] == (5, 7)
    # 0.01 m a unit
    assert frames.chunks[0, 0, :3] == pytest.approx(data_rig.STEP / 0.01, rel=1e-5)


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        ({'rate': 20}, 'rate 20 Hz: the contract of arm-1 has a control_period of 0.1 s, 10 Hz'),
        ({'execution': 'spring'}, 'execution spring: the contract of arm-1 has displacement'),
        ({'cameras': {'front': 'a'}}, 'exactly front and hand are needed, in this order'),
        ({'robot': 'none.yaml'}, 'none.yaml: cannot be read'),
    ],
)
def test_data_that_contradict_the_contract_are_refused(tmp_path, changes, said):
    with pytest.raises(ConfigError) as error:
        mapped(tmp_path, **changes)
    assert said in str(error.value)


def test_pictures_of_another_shape_than_the_drivers_are_refused(tmp_path):
    robot = changed(cameras__front__size=[480, 480], cameras__hand__size=[480, 480])
    mapped(tmp_path)
    (tmp_path / 'robot.yaml').write_text(yaml.safe_dump(robot))
    mapping = read_mapping(tmp_path / 'data.yaml')
    path = data_rig.write_hdf5(tmp_path / 'own.hdf5')
    with pytest.raises(Exception, match='its driver publishes 480 x 480'):
        read_demonstrations(path, mapping=mapping)


def test_the_inspection_speaks_of_the_contracts_cameras_and_speed(tmp_path, capsys):
    mapped(tmp_path)
    path = data_rig.write_hdf5(tmp_path / 'own.hdf5')
    command = f'data inspect {path} --mapping {tmp_path}/data.yaml --sheet {tmp_path}/sheet.png'
    assert main(shlex.split(command)) == 0
    said = capsys.readouterr().out
    assert '10 Hz' in said
    assert 'third_person' not in said


def test_an_untrained_policy_is_of_the_robot(tmp_path, capsys):
    """Random weights answer with the contract's steps to its cameras and state."""
    pytest.importorskip('torch')
    third = {'mount': 'scene', 'size': [480, 640]}
    cameras = {'front': third, 'side': third, 'wrist': third | {'mount': 'wrist'}}
    path, folder = tmp_path / 'robot.yaml', tmp_path / 'policy'
    path.write_text(yaml.safe_dump(changed(cameras=cameras)))
    arguments = ['make-untrained', '--layers', '1', '--robot', str(path), '--out', str(folder)]
    assert main(arguments) == 0
    with Policy.load(folder, 'torch') as policy:
        manifest = policy.manifest
        assert [camera.name for camera in manifest.cameras] == list(cameras)
        assert manifest.proprio.layout == ('ee_position', 'gripper_qpos')
        assert manifest.action.execution == 'displacement'
        chunk = policy.act(Observation.example(manifest))
        assert chunk.translations.shape == (5, 3)
    words = [f'word{number}' for number in range(600)]
    path.write_text(yaml.safe_dump(changed(words=words)))
    capsys.readouterr()
    assert main([*arguments[:-1], str(tmp_path / 'other')]) == 1
    assert 'arm-1: the contract and the prompt have' in capsys.readouterr().err
    assert not (tmp_path / 'other').exists()
