"""Whatever stops a command is one line and an exit code, never a traceback."""

import importlib
import inspect
import json
import os
import pkgutil
import shutil
import subprocess
import sys

import pytest
from published_folder import tiny_published_config, write_published

import lightvla_ros
from lightvla_ros import errors
from lightvla_ros.cli import COMMANDS, main
from lightvla_ros.cli.exit_code import exit_code
from lightvla_ros.contract import write_manifest
from lightvla_ros.errors import ArgumentError, LightVLAError, sentence

# raised to get out of a loop or a request, and caught where they are raised
SIGNALS = {'StoppedError', '_Refused'}


def test_every_error_of_ours_has_the_same_root_and_is_in_the_drawing():
    found = {}
    for module in pkgutil.walk_packages(lightvla_ros.__path__, 'lightvla_ros.'):
        if module.name.rsplit('.')[1] == 'msg':
            continue
        try:
            loaded = importlib.import_module(module.name)
        except ModuleNotFoundError:  # of an extra that is not installed
            continue
        for name, thing in inspect.getmembers(loaded, inspect.isclass):
            if issubclass(thing, Exception) and thing.__module__ == module.name:
                found[name] = thing
                assert issubclass(thing, LightVLAError) or name in SIGNALS, module.name
    assert drawing_of(found.keys() - SIGNALS, found) in errors.__doc__


def drawing_of(names, classes):
    """Draw the tree of errors as the docstring of errors.py does."""
    below = {name: [] for name in names}
    for name in sorted(names - {'LightVLAError'}):
        below[classes[name].__bases__[0].__name__].append(name)

    def lines(name, first, rest):
        home = classes[name].__module__.removeprefix('lightvla_ros.')
        yield f'    {first + name:<28}{"" if home == "errors" else home}'.rstrip()
        for child in below[name]:
            last = child == below[name][-1]
            yield from lines(
                child,
                rest + '└── ' * last + '├── ' * (not last),
                rest + ('    ' if last else '│   '),
            )

    return '\n'.join(lines('LightVLAError', '', '')) + '\n'


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
        (
            ModuleNotFoundError("No module named 'lightvla_ros.msg'", name='lightvla_ros.msg'),
            1,
            "lightvla x: No module named 'lightvla_ros.msg'; pip does not install the ROS "
            "messages: source the workspace built by colcon, or run the repository's "
            'tools/build_messages.sh VENV',
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


# For each command, what it is given to read or write: {cut}, a policy folder with a file that was
# cut off; {missing}, nothing; {text}, a text file in the place of a folder or of a document;
# {taken}, a file in the place of a folder to write into. {policy} is good, {free} can be written.
FAULTS = {
    'demo': [
        '--policy {cut} --out {free}',
        '--policy {missing} --out {free}',
        '--policy {text} --out {free}',
        '--policy {policy} --out {taken}/x',
    ],
    'doctor': [
        '--live --policy {missing}',
        '--live --policy {text}',
        '--live --policy {policy} --robot {text}',
        '--policy {policy} --json {taken}/x.json',
    ],
    'eval': [
        '--policy {cut} --json {free}.json',
        '--policy {missing} --json {free}.json',
        '--policy {text} --json {free}.json',
        '--policy {policy} --json {taken}/x.json',
        '--merge {missing} --json {free}.json',
        '--merge {text} --json {free}.json',
    ],
    'compare': ['{missing} {missing}', '{text} {text}', '{policy} {policy}'],
    'tables': ['{missing} --out {free}', '{text} --out {free}'],
    'listen': [
        '--policy {cut} --json {free}.json',
        '--policy {missing}',
        '--policy {text}',
        '--policy {policy} --json {taken}/x.json',
    ],
    'show': [
        '--policy {cut} --out {free} --engine torch --suite libero_object --task 0',
        '--policy {missing} --out {free}',
        '--policy {text} --out {free}',
        '--policy {policy} --out {taken}/x',
    ],
    'bench': [
        f'{kind} --policy {{{fault}}}'
        for kind in ('node', 'engine', 'gpu --device cpu')
        for fault in ('cut', 'missing', 'text')
    ]
    + ['gpu --device cpu --policy {policy} --out {taken}/x.json'],
    'replay': ['{missing}', '{text}', '{missing} --policy {policy}'],
    'new-policy': [
        '{missing} --out {free}',
        '{text} --out {free}',
        '{robot} --out {taken}/x',
    ],
    'calibrate': ['{cut}', '{missing}', '{text}', '{policy} --observations {missing}'],
    'alarm': [
        'observe {cut} --out {free}',
        'observe {missing} --out {free}',
        'observe {policy} --out {taken}/x',
        'calibrate {text} --observations {missing}',
        'calibrate {policy} --observations {missing}',
        'calibrate {policy} --observations {text}',
        'calibrate {policy} --data {missing}',
        'measure {cut} --observations {missing}',
        'measure {missing} --observations {text}',
    ],
    'import': [
        '--checkpoint {cut} --out {free}',
        '--checkpoint {missing} --out {free}',
        '--checkpoint {text} --out {free}',
        '--checkpoint {published} --out {taken}/x',
    ],
    'export': [
        '--policy {cut} --out {free}',
        '--policy {missing} --out {free}',
        '--policy {text} --out {free}',
        '--policy {policy} --out {taken}/x',
        '--policy {policy} --out {free} --observations {missing}',
        '--policy {policy} --out {free} --observations {text}',
        '--policy {policy} --out {free} --histogram {missing}',
        '--policy {policy} --out {free} --histogram {text}',
        '--checkpoint {missing} --out {free}',
        '--checkpoint {text} --out {free}',
    ],
    'verify': [
        '{cut}',
        '{missing}',
        '{text}',
        '{missing} --recording {missing}',
    ],
    'collect': [
        '--policy {cut} --out {free} --tasks 0 --suite libero_object --workers 1',
        '--policy {missing} --out {free} --tasks 0 --suite libero_object --workers 1',
        '--policy {text} --out {free} --tasks 0 --suite libero_object --workers 1',
        '--out {taken}/x',
    ],
    'data': [
        'inspect {missing}',
        'inspect {text}',
        'inspect {missing} --mapping {text}',
        'inspect {policy} --mapping {missing}',
        'inspect {policy} --like {cut}',
        'inspect {policy} --like {missing}',
    ],
    'train': [
        '--config {missing}',
        '--config {text}',
        '--config {config} --out {taken}/x',
        '--config {config} --out {free} --write-policy {missing}',
        '--config {config} --out {free} --write-policy {text}',
    ],
    'average': [
        '{missing} {policy} --out {free}',
        '{policy} {cut} --out {free}',
        '{policy} {text} --out {free}',
        '{policy} {policy} --out {taken}/x',
    ],
    'make-untrained': [
        '--out {taken}/x',
        '--out {free} --robot {missing}',
        '--out {free} --robot {text}',
    ],
    'flops': ['--policy {cut}', '--policy {missing}', '--policy {text}'],
    'plan': [],  # reads and writes nothing
    'reference': ['--update {missing}', '--update {text}', '--update {taken}/x'],
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
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp('published') / 'checkpoint'
    write_published(folder, tiny_published_config())
    return folder


@pytest.fixture(scope='module')
def cut_off(bundled_policy, tmp_path_factory):
    folder = tmp_path_factory.mktemp('damaged') / 'cut_off'
    shutil.copytree(bundled_policy, folder)
    with (folder / 'act.onnx').open('r+b') as file:
        file.truncate(1000)
    return folder


def _run(words, capfd):
    # rclpy is initialised once in a process, and other tests may have done so
    if words[0] == 'demo':
        program = [sys.executable, '-m', 'lightvla_ros.cli', *words]
        done = subprocess.run(program, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr
    code = main(words)
    return code, *capfd.readouterr()


@pytest.fixture
def answer(pytestconfig, tmp_path, capfd, monkeypatch, bundled_policy, published):
    """Return a function that runs a command and checks that it ends with one line."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'taken').touch()
    (tmp_path / 'text').write_text('hello\n')
    places = {name: str(tmp_path / name) for name in ('free', 'taken', 'missing', 'text')}
    places |= {
        'policy': str(bundled_policy),
        'published': str(published),
        'robot': str(pytestconfig.rootpath / 'config/robots/libero.yaml'),
        'config': str(pytestconfig.rootpath / 'config/train/libero_tiny_base.yaml'),
    }

    def check(words, **more):
        code, out, err = _run(words.format(**places, **more).split(), capfd)
        assert code in (1, 2), (out, err)
        assert 'Traceback' not in out + err
        return err.strip().splitlines()[-1]  # after a bar or what was going on

    return check


@pytest.mark.parametrize(
    ('command', 'words'), [(name, words) for name, all_of in FAULTS.items() for words in all_of]
)
def test_a_fault_of_what_is_read_or_written_is_one_line(
    command, words, answer, cut_off, bundled_policy, tmp_path
):
    said = answer(f'{command} {words}', cut=cut_off)
    assert said.startswith(f'lightvla {command}')
    if '{cut}' in words and command != 'import':  # a policy folder is not a checkpoint at all
        assert f'{cut_off}/act.onnx: SHA-256 is' in said
    where = {'{cut}': str(cut_off)} | {
        f'{{{name}}}': str(tmp_path / name) for name in ('missing', 'text', 'taken')
    }
    where['{policy} {policy}'] = str(bundled_policy)  # a folder in the place of a document
    assert any(path in said for name, path in where.items() if name in words), said


def test_no_command_is_left_out():
    assert FAULTS.keys() == COMMANDS.keys()


@pytest.mark.parametrize('words', ['show', 'eval --json {free}.json', 'listen'])
def test_weights_that_lack_a_tensor_are_one_line(words, damaged, answer):
    words += f' --policy {damaged} --engine torch --suite libero_object'
    assert 'no weights for action_head.model.fc1.bias' in answer(words)


def test_an_install_without_the_bundled_policy_says_how_to_name_another(pytestconfig, tmp_path):
    for folder in ('lightvla_ros', 'config'):
        shutil.copytree(pytestconfig.rootpath / folder, tmp_path / folder)
    done = subprocess.run(
        [sys.executable, '-m', 'lightvla_ros.cli', 'demo', '--out', 'out'],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith('lightvla demo: models/libero_tiny: is neither in ')
    assert line.endswith('; name a policy folder by --policy')
