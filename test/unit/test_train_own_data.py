"""`lightvla train` on a LeRobot folder, by the command that the documentation gives."""

import json

import data_rig
import pytest
import train_rig
import yaml

from lightvla_ros.cli import main
from lightvla_ros.contract import load_manifest

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
