"""`lightvla train` on a LeRobot folder, by the command that the documentation gives."""

import json

import data_rig
import numpy as np
import published_folder
import pytest
import train_rig
import yaml
from robots import ROBOT

from lightvla_ros.cli import main
from lightvla_ros.contract import load_manifest
from lightvla_ros.policy.tokenizer import read_tokenizer

pytest.importorskip('torch')
pytest.importorskip('pyarrow')
pytest.importorskip('av')


def write(folder, rate=data_rig.RATE, execution='displacement', **changes):
    """Write a data set, its data YAML and a configuration; return that."""
    data = data_rig.write_lerobot(folder / 'set', lengths=(12, 13, 12, 14), fps=rate)
    mapping = folder / 'data.yaml'
    content = data_rig.mapping('lerobot', rate=rate, execution=execution, size=[24, 32])
    mapping.write_text(yaml.safe_dump(content))
    config = folder / 'train.yaml'
    document = train_rig.document(data, **changes)
    document['data']['paths'] = [{'path': str(data), 'mapping': str(mapping)}]
    config.write_text(yaml.safe_dump(document))
    return config


def train(config, out):
    return main(['train', '--config', str(config), '--out', str(out)])


def test_a_policy_is_trained_from_scratch(tmp_path):
    out = tmp_path / 'run'
    assert train(write(tmp_path, rate=10), out) == 0
    manifest = load_manifest(out / 'policy')
    action = manifest.action
    assert action.control_period == 0.1
    assert (action.execution, action.reference) == ('displacement', 'previous_target')
    assert [camera.aspect for camera in manifest.cameras] == [pytest.approx(4 / 3)] * 2
    # all steps are equal, and the bounds are apart by what is set for constants
    assert action.q01[0] < 0.04 < action.q99[0]
    mappings = manifest.provenance['data']['mappings']
    assert mappings[str(tmp_path / 'set')]['rate'] == 10
    assert json.dumps(mappings)


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        ({'rate': 10}, 'is a policy for 20 Hz, but the demonstrations are at 10 Hz'),
        ({'execution': 'spring'}, "steps are a displacement, but the demonstrations' a spring"),
    ],
)
def test_data_of_another_rate_or_execution_do_not_fit_a_policy(tmp_path, capsys, changes, said):
    (tmp_path / 'first').mkdir()
    (tmp_path / 'second').mkdir()
    assert train(write(tmp_path / 'first', steps=1, log_every=1), tmp_path / 'run') == 0
    model = {'from': str(tmp_path / 'run/policy')}
    config = write(tmp_path / 'second', model=model, steps=1, log_every=1, **changes)
    assert train(config, tmp_path / 'next') == 1
    assert said in capsys.readouterr().err


def test_a_fine_tuning_continues_on_own_data(tmp_path):
    (tmp_path / 'first').mkdir()
    config = write(tmp_path / 'first', steps=1, log_every=1)
    assert train(config, tmp_path / 'run') == 0
    document = yaml.safe_load(config.read_text())
    document |= {'model': {'from': str(tmp_path / 'run/policy')}, 'lora': {'rank': 2}}
    config.write_text(yaml.safe_dump(document))
    pytest.importorskip('peft')
    assert train(config, tmp_path / 'next') == 0
    assert load_manifest(tmp_path / 'next/policy').action.execution == 'displacement'


def test_sources_of_different_rates_are_not_mixed(tmp_path, capsys):
    (tmp_path / 'own').mkdir()
    config = write(tmp_path / 'own', rate=10)
    document = yaml.safe_load(config.read_text())
    document['data']['paths'].append(str(train_rig.write_file(tmp_path / 'libero')))
    config.write_text(yaml.safe_dump(document))
    assert train(config, tmp_path / 'run') == 1
    assert 'different' in capsys.readouterr().err


TASK = 'stack the red cube'
WHOLE = {'ee_position': 'm', 'ee_axis_angle': 'rad', 'gripper_qpos': 'm'}


def write_own(folder, lengths=(12, 13, 12), instruction=TASK, **changes):
    """Write HDF5 of a robot with a contract, and a configuration; return that."""
    folder.mkdir(exist_ok=True)
    data = data_rig.write_hdf5(folder / 'own.hdf5', lengths, instruction=instruction)
    (folder / 'robot.yaml').write_text(yaml.safe_dump(ROBOT | {'proprio': WHOLE}, sort_keys=False))
    content = data_rig.mapping('hdf5', robot='robot.yaml', size=[24, 32])
    content['cameras'] = {'front': 'images/front', 'hand': 'images/hand'}
    del content['rate'], content['execution']
    (folder / 'data.yaml').write_text(yaml.safe_dump(content, sort_keys=False))
    document = train_rig.document(data, steps=2, log_every=1, **changes)
    document['data']['paths'] = [{'path': str(data), 'mapping': str(folder / 'data.yaml')}]
    config = folder / 'train.yaml'
    config.write_text(yaml.safe_dump(document, sort_keys=False))
    return config


def test_a_policy_from_scratch_has_the_contract_and_the_words_of_its_data(tmp_path):
    out = tmp_path / 'run'
    assert train(write_own(tmp_path / 'own'), out) == 0
    manifest = load_manifest(out / 'policy')
    assert [camera.name for camera in manifest.cameras] == ['front', 'hand']
    assert manifest.cameras[1].rotate_degrees == 180
    action = manifest.action
    assert (action.chunk_length, action.control_period) == (5, 0.1)
    assert (action.translation_scale, action.rotation_scale) == (0.01, 0.1)
    assert (action.gripper_open, action.gripper_closed) == (1.0, -1.0)
    words = read_tokenizer(out / 'policy/tokenizer.json').get_vocab()
    assert {'stack', 'cube', 'robot'} <= words.keys()
    assert 'milk' not in words  # a word of LIBERO's, which these data never show


def test_an_imported_checkpoint_becomes_a_policy_of_another_robot_by_lora(tmp_path, capsys):
    pytest.importorskip('peft')
    published = tmp_path / 'published'
    published_folder.write_published(published)
    command = ['import', '--checkpoint', str(published), '--pruning', 'off']
    assert main([*command, '--out', str(tmp_path / 'imported')]) == 0
    begun = {'from': str(tmp_path / 'imported')}
    changes = {'lora': {'rank': 2, 'reinitialise_heads': True}, 'autocast': True}
    changes['instruction'] = 'pick up and place it'  # all that its tokenizer knows
    config = write_own(tmp_path / 'own', model=begun, **changes)
    assert train(config, tmp_path / 'refused') == 1
    assert 'set model.bounds to robot' in capsys.readouterr().err
    config = write_own(tmp_path / 'own', model=begun | {'bounds': 'robot'}, **changes)
    assert train(config, tmp_path / 'run') == 0
    manifest = load_manifest(tmp_path / 'run/policy')
    assert [camera.name for camera in manifest.cameras] == ['front', 'hand']
    assert not any(camera.mirror for camera in manifest.cameras)  # OpenVLA's of LIBERO are
    assert manifest.preprocessing.jpeg_quality is None
    assert (manifest.action.chunk_length, manifest.action.control_period) == (5, 0.1)
    # bounds of these data: a step of 3 mm is 0.3 units
    assert manifest.action.q01[2] < 0.3 < manifest.action.q99[2]
    assert manifest.proprio.q99[2] > 0.5
    assert manifest.prompt.length == 64


def test_a_model_that_reads_another_state_is_refused_plainly(tmp_path, capsys):
    (tmp_path / 'first').mkdir()
    assert train(write(tmp_path / 'first', steps=1, log_every=1), tmp_path / 'run') == 0
    model = {'from': str(tmp_path / 'run/policy'), 'bounds': 'robot'}
    config = write_own(tmp_path / 'own', model=model)
    contract = yaml.safe_load((tmp_path / 'own/robot.yaml').read_text())
    contract['proprio'] = {'ee_position': 'm', 'gripper_qpos': 'm'}
    contract['cameras'] = ROBOT['cameras']
    (tmp_path / 'own/robot.yaml').write_text(yaml.safe_dump(contract, sort_keys=False))
    assert train(config, tmp_path / 'next') == 1
    said = capsys.readouterr().err
    assert 'its weights read a state of 8 numbers, but the contract of arm-1 has 5' in said


def test_one_episode_is_all_trained_on_and_the_observations_are_of_it(tmp_path, caplog):
    config = write_own(tmp_path / 'own', lengths=(12,))
    assert train(config, tmp_path / 'run') == 0
    assert 'is one episode, so none of it is held out' in caplog.text
    observations = np.load(tmp_path / 'run/observations.npz')
    assert set(observations['instruction']) == {TASK}


def test_a_cameras_number_that_contradicts_the_contract_is_refused(tmp_path, capsys):
    config = write_own(tmp_path / 'own')
    document = yaml.safe_load(config.read_text())
    document['model']['changes']['cameras'] = 3
    config.write_text(yaml.safe_dump(document))
    assert train(config, tmp_path / 'run') == 1
    said = capsys.readouterr().err
    assert 'model.changes.cameras is 3, but by the contract of arm-1 it is 2' in said


def test_words_that_no_training_frame_has_are_told(tmp_path, caplog):
    import h5py

    config = write_own(tmp_path / 'own', lengths=(12, 13, 12, 14, 12, 12))
    with h5py.File(tmp_path / 'own/own.hdf5', 'a') as file:
        for index, name in enumerate(file['trials']):
            file['trials'][name].attrs['task'] = f'stack cube {"abcdef"[index]}'
    assert train(config, tmp_path / 'run') == 0
    assert 'no training frame has the words ' in caplog.text
