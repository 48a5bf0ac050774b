"""Configurations of training: what is refused, and those in the repository."""

from pathlib import Path

import pytest
import train_rig

from lightvla_ros.cli import main
from lightvla_ros.errors import ConfigError
from lightvla_ros.train.config import AugmentConfig
from lightvla_ros.train.config_file import from_dict, read_config
from lightvla_ros.train.config_sources import DataSource
from lightvla_ros.train.model_config import changed
from lightvla_ros.typed_yaml import read_yaml
from lightvla_ros.vla.config import preset

FOLDER = Path(__file__).parents[2] / 'config/train'


@pytest.mark.parametrize('path', sorted(FOLDER.glob('*.yaml')), ids=lambda path: path.stem)
def test_those_in_the_repository_are_valid(path):
    config = read_config(path)
    assert from_dict(config.to_dict()) == config
    if config.model.preset:
        changed(preset(config.model.preset), config.model.changes)


def test_the_7b_is_the_papers():
    config = read_config(FOLDER / 'openvla_oft_7b_lightvla.yaml')
    assert (config.lora.rank, config.lora.alpha, config.lora.dropout) == (32, 16, 0)
    assert (config.optimizer.lr, config.optimizer.milestones) == (5e-4, (30000,))
    assert (config.steps, config.batch_size, config.noise.schedule) == (40005, 8, 'linear')


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'stepz': 3}, 'stepz is unknown; there are: .*steps'),
        ({'optimizer': {'rate': 1}}, 'optimizer.rate is unknown'),
        ({'optimizer': {'name': 'sgd'}}, "optimizer.name 'sgd' is not one of adamw, muon"),
        ({'optimizer': {'lr': 'fast'}}, "optimizer.lr: 'fast' is not a number"),
        ({'optimizer': {'schedule': 'cosine', 'milestones': [3]}}, 'milestones need'),
        ({'model': {'preset': 'libero-tiny', 'from': 'x'}}, 'exactly one'),
        ({'model': {'start': 'x'}}, "the name is 'from'"),
        ({'data': {'paths': []}}, 'give at least one'),
        ({'data': {'paths': [{'path': 'x', 'weight': 0}]}}, 'weight 0.0 must be a positive'),
        ({'steps': 0}, 'steps 0 must be a positive'),
        ({'steps': None}, 'steps: None is not of type int'),
        ({'alignment': {'only_steps': 7}}, 'only_steps 7 is more than steps 6'),
        ({'augment': 'some'}, "augment 'some' is not off"),
        ({'interpolation': 0}, r'interpolation 0.0 is not in \(0, 1\]'),
        ({'interpolation': 0.5}, 'interpolation: needs model.from'),
        ({'lora': {'dropout': 1.5}}, 'lora.dropout 1.5'),
        ({'noise': {'schedule': 'step'}}, "noise.schedule 'step'"),
    ],
)
def test_a_wrong_choice_is_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(train_rig.document('x', **changes))


def test_a_missing_key_is_named():
    document = train_rig.document('x')
    del document['steps']
    with pytest.raises(ConfigError, match='steps is missing'):
        from_dict(document)


def test_a_file_is_named(tmp_path):
    path = tmp_path / 'c.yaml'
    with pytest.raises(ConfigError, match='c.yaml: cannot be read'):
        read_config(path)
    path.write_text('a: [')
    with pytest.raises(ConfigError, match='c.yaml: not YAML'):
        read_config(path)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('steps: 5000\nname: a\nsteps: 2\n', 'steps is given twice, in line 1 and in line 3'),
        ('model:\n  preset: a\n  "preset": b\n', 'preset is given twice, in line 2 and in line 3'),
        ('data: {held_out: 0, held_out: 1}\n', 'held_out is given twice, in line 1 and in line 1'),
    ],
)
def test_a_key_given_twice_is_refused_with_both_lines(tmp_path, text, message):
    path = tmp_path / 'c.yaml'
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf'c\.yaml: {message}'):
        read_config(path)


def test_a_key_that_overrides_a_merged_one_is_given_once(tmp_path):
    path = tmp_path / 'c.yaml'
    path.write_text('a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\n')
    assert read_yaml(path)['b'] == {'x': 3, 'y': 2}


@pytest.mark.parametrize('encoding', ['latin-1', 'utf-16'])
def test_a_file_in_another_encoding_is_one_line(tmp_path, capsys, encoding):
    path = tmp_path / 'c.yaml'
    path.write_bytes('name: Münze\n'.encode(encoding))
    assert main(['train', '--config', str(path)]) == 1
    said = capsys.readouterr().err
    assert f'{path}: is not UTF-8 text' in said
    assert said.count('\n') == 1


def test_short_forms():
    def augment(value):
        return from_dict(train_rig.document('x', augment=value)).augment

    assert augment('published') == AugmentConfig(crop=True, colour=True)
    assert augment(False) == augment('off') == AugmentConfig(crop=False, colour=False)
    assert augment({'colour': True}) == AugmentConfig(crop=False, colour=True)
    config = from_dict(train_rig.document('x', data={'paths': ['a', {'path': 'b', 'weight': 2}]}))
    assert config.data.paths == (DataSource('a'), DataSource('b', 2.0))
    assert from_dict(train_rig.document('x', optimizer={'lr': '5e-4'})).optimizer.lr == 5e-4


def test_changes_of_the_model_reach_nested_fields():
    small = preset('libero-tiny')
    config = changed(small, {'language': {'layers': 2}, 'pruning': {'method': 'off'}})
    assert (config.language.layers, config.language.width) == (2, small.language.width)
    assert config.pruning.method == 'off'
    with pytest.raises(ConfigError, match='model.changes.language.depth is unknown'):
        changed(small, {'language': {'depth': 2}})
