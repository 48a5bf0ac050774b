"""Recordings written as a LeRobot data set, and read back by our own reader."""

import json

import numpy as np
import pytest
from data_rig import INSTRUCTION, mapping, write_bag, write_hdf5

from lightvla_ros.cli import main
from lightvla_ros.demonstrations.lerobot import read_info
from lightvla_ros.demonstrations.mapping import read_mapping
from lightvla_ros.demonstrations.reader import read_demonstrations


def _write_yaml(path, document):
    path.write_text(json.dumps(document))  # JSON is YAML
    return path


def _back(folder):
    return read_demonstrations(folder, mapping=read_mapping(folder / 'data.yaml'))


def test_what_is_written_is_read_back_to_the_last_pixel(tmp_path, capsys):
    source = write_hdf5(tmp_path / 'own.hdf5')
    described = _write_yaml(tmp_path / 'own.yaml', mapping('hdf5'))
    out = tmp_path / 'lerobot'
    command = ['data', 'to-lerobot', str(source), '--mapping', str(described), '--out', str(out)]
    assert main(command) == 0
    assert '2 episodes, 26 rows' in capsys.readouterr().out
    before = read_demonstrations(source, mapping=read_mapping(described)).load(progress=False)
    after = _back(out).load(progress=False)
    np.testing.assert_array_equal(after.images, before.images)
    np.testing.assert_array_equal(after.episode, before.episode)
    np.testing.assert_allclose(after.proprio, before.proprio, atol=1e-6)
    np.testing.assert_allclose(after.chunks, before.chunks, atol=1e-6)
    assert after.instructions == before.instructions == (INSTRUCTION,)
    assert after.robot == before.robot
    info = read_info(out)
    assert (info['codebase_version'], info['fps']) == ('v3.0', 20)
    assert (info['total_episodes'], info['total_frames']) == (2, 26)
    statistics = json.loads((out / 'meta/stats.json').read_text())
    assert statistics['action']['count'] == [26]
    assert np.shape(statistics['observation.images.wrist']['mean']) == (3, 1, 1)
    sheet = tmp_path / 'sheet.png'
    inspect = ['data', 'inspect', str(out), '--mapping', str(out / 'data.yaml')]
    assert main([*inspect, '--sheet', str(sheet)]) == 0
    assert sheet.is_file()
    assert main(command) == 1
    assert 'is not empty' in capsys.readouterr().err


def test_an_episode_is_cut_where_a_picture_is_missing(tmp_path):
    bag = write_bag(tmp_path / 'bag', rows=14, skip=(5,))
    described = _write_yaml(tmp_path / 'bag.yaml', mapping('rosbag'))
    out = tmp_path / 'lerobot'
    command = ['data', 'to-lerobot', str(bag), '--mapping', str(described), '--out', str(out)]
    assert main(command) == 0
    assert [each.steps for each in _back(out).episodes] == [5, 8]


def test_what_cannot_be_written_is_one_line(tmp_path, capsys):
    bag = write_bag(tmp_path / 'bag', rows=4, skip=(1, 3))
    described = _write_yaml(tmp_path / 'bag.yaml', mapping('rosbag'))
    out = tmp_path / 'lerobot'
    command = ['data', 'to-lerobot', str(bag), '--mapping', str(described), '--out', str(out)]
    assert main(command) == 1
    line = capsys.readouterr().err.strip()
    assert 'no episode can be written' in line
    assert '\n' not in line
    assert not out.exists()


@pytest.mark.parametrize('name', ['recording', 'rosbag', 'lerobot', 'hdf5', 'libero'])
def test_the_data_yamls_are_valid(name):
    from lightvla_ros.files import resource

    read_mapping(resource('config/data') / f'{name}.yaml')
