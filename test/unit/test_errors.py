"""Whatever stops a command is one line and an exit code, never a traceback."""

import importlib
import inspect
import json
import pkgutil
import shutil
import subprocess
import sys

import pytest

import lightvla_ros
from lightvla_ros.cli import main
from lightvla_ros.cli.exit_code import exit_code
from lightvla_ros.contract import write_manifest
from lightvla_ros.errors import ArgumentError, LightVLAError, sentence

# raised to get out of a loop, and caught where it is raised
SIGNALS = {'StoppedError'}


def test_every_error_of_ours_has_the_same_root():
    found = set()
    for module in pkgutil.walk_packages(lightvla_ros.__path__, 'lightvla_ros.'):
        if module.name.rsplit('.')[1] == 'msg':
            continue
        try:
            loaded = importlib.import_module(module.name)
        except ModuleNotFoundError:  # of an extra that is not installed
            continue
        for name, thing in inspect.getmembers(loaded, inspect.isclass):
            if issubclass(thing, Exception) and thing.__module__ == module.name:
                found.add(name)
                assert issubclass(thing, LightVLAError) or name in SIGNALS, module.name
    assert {'ContractError', 'EngineError', 'CheckpointError', 'EvaluationError'} <= found


@pytest.mark.parametrize(
    ('error', 'code', 'line'),
    [
        (LightVLAError('no weights'), 1, 'lightvla x: no weights'),
        (LightVLAError('of two\nlines'), 1, 'lightvla x: of two lines'),
        (ArgumentError('--count -1'), 2, 'lightvla x: --count -1'),
        (
            OSError(28, 'No space left on device', '/a'),
            1,
            'lightvla x: /a: No space left on device',
        ),
        (OSError(17, 'File exists', '/a', None, '/b'), 1, 'lightvla x: /a -> /b: File exists'),
        (FileExistsError('/a is not empty'), 1, 'lightvla x: /a is not empty'),
        (
            ModuleNotFoundError("No module named 'scipy'", name='scipy'),
            1,
            "lightvla x: No module named 'scipy'; this needs pip install 'lightvla_ros[sim]'",
        ),
        (KeyboardInterrupt(), 130, 'lightvla x: stopped'),
    ],
)
def test_what_stops_a_command_is_one_line(error, code, line, capsys):
    def work():
        raise error

    assert exit_code('lightvla x', work) == code
    printed = capsys.readouterr()
    assert printed.err.strip() == line
    assert printed.out == ''


def test_other_errors_are_named_with_their_type():
    assert sentence(KeyError('a')) == "KeyError: 'a'"


# What each command makes of a policy folder {policy}; {free} can be written, {taken} cannot.
POLICY_COMMANDS = [
    'verify {policy}',
    'demo --policy {policy} --out {free}',
    'eval --policy {policy} --json {free}.json',
    'listen --policy {policy} --json {free}.json',
    'show --policy {policy} --out {free} --engine torch --suite libero_object --task 0',
    'bench engine --policy {policy}',
    'bench node --policy {policy}',
    'export --policy {policy} --out {free}',
]
MISSING_FILE_COMMANDS = [
    'compare {missing} {missing}',
    'eval --merge {missing} --json {free}.json',
    'import --checkpoint {missing} --out {free}',
    'export --checkpoint {missing} --out {free}',
    'train --config {missing}',
    'reference --update {missing}',
]
TAKEN_COMMANDS = [
    'demo --policy {policy} --out {taken}/x',
    'eval --policy {policy} --json {taken}/x.json',
    'listen --policy {policy} --json {taken}/x.json',
    'show --policy {policy} --out {taken}/x',
    'export --policy {policy} --out {taken}/x',
    'make_untrained --out {taken}/x',
    'reference --update {taken}/x',
]
DOORS = {
    'export': 'models/export_trt.py',
    'train': 'models/train.py',
    'make_untrained': 'models/make_untrained.py',
}


@pytest.fixture(scope='module')
def damaged(bundled_policy, tmp_path_factory):
    """A policy folder that lacks a tensor, with right hashes, and one whose file was cut off."""
    torch = pytest.importorskip('torch')
    from safetensors.torch import load_file, save_file

    del torch
    lacking = tmp_path_factory.mktemp('damaged') / 'lacking'
    shutil.copytree(bundled_policy, lacking)
    document = json.loads((lacking / 'manifest.json').read_text())
    (weights,) = document['model']['weights']
    tensors = load_file(lacking / weights)
    del tensors['action_head.model.fc1.bias']
    save_file(tensors, lacking / weights)
    write_manifest(lacking, document)
    return lacking


@pytest.fixture(scope='module')
def cut_off(bundled_policy, tmp_path_factory):
    folder = tmp_path_factory.mktemp('damaged') / 'cut_off'
    shutil.copytree(bundled_policy, folder)
    with (folder / 'act.onnx').open('r+b') as file:
        file.truncate(1000)
    return folder


def _run(words, root, places, capfd):
    name, *arguments = words.format(**places).split()
    # rclpy is initialised once in a process, and other tests may have done so
    alone = ['-m', 'lightvla_ros.cli', name] if name == 'demo' else None
    program = [root / DOORS[name]] if name in DOORS else alone
    if program:
        done = subprocess.run(
            [sys.executable, *program, *arguments], capture_output=True, text=True
        )
        return done.returncode, done.stdout, done.stderr
    code = main([name, *arguments])
    return code, *capfd.readouterr()


@pytest.fixture
def answers_in_one_line(pytestconfig, tmp_path, capfd, monkeypatch):
    """Return a function that runs a command and checks that it ends with one line."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'taken').touch()
    places = {name: str(tmp_path / name) for name in ('free', 'taken', 'missing')}

    def check(words, policy=''):
        code, out, err = _run(words, pytestconfig.rootpath, {**places, 'policy': policy}, capfd)
        assert code in (1, 2), (out, err)
        assert 'Traceback' not in out + err
        return err.strip().splitlines()[-1]  # after a bar or what was going on

    return check


@pytest.mark.parametrize('words', POLICY_COMMANDS)
def test_a_damaged_policy_folder_is_one_line(words, cut_off, answers_in_one_line):
    assert f'{cut_off}/act.onnx: SHA-256 is' in answers_in_one_line(words, cut_off)


@pytest.mark.parametrize('words', ['show', 'eval --json {free}.json', 'listen'])
def test_weights_that_lack_a_tensor_are_one_line(words, damaged, answers_in_one_line):
    words += f' --policy {damaged} --engine torch --suite libero_object'
    assert 'no weights for action_head.model.fc1.bias' in answers_in_one_line(words)


@pytest.mark.parametrize('words', MISSING_FILE_COMMANDS)
def test_a_missing_file_is_one_line(words, answers_in_one_line, tmp_path):
    assert str(tmp_path / 'missing') in answers_in_one_line(words)


@pytest.mark.parametrize('words', TAKEN_COMMANDS)
def test_an_output_that_cannot_be_written_is_one_line(
    words, answers_in_one_line, bundled_policy, tmp_path
):
    assert str(tmp_path / 'taken') in answers_in_one_line(words, bundled_policy)
