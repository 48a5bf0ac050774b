"""`lightvla tables`: plans of tables, their rows as options of `lightvla eval`, and the table."""

import signal
from pathlib import Path

import pytest
import train_rig
import yaml

from lightvla_ros.cli import main, make_parser, tables
from lightvla_ros.contract import load_manifest
from lightvla_ros.errors import ConfigError
from lightvla_ros.evaluate.episodes import Conditions, EpisodeRecord
from lightvla_ros.evaluate.result import summarise, write_document
from lightvla_ros.evaluate.tables import read_plan, result_path, table

PLANS = sorted((Path(__file__).parents[2] / 'config' / 'tables').glob('*.yaml'))


@pytest.mark.parametrize('path', PLANS, ids=lambda path: path.stem)
def test_all_rows_of_our_tables_are_options_of_eval(path, tmp_path):
    plan = read_plan(path)
    parsed = make_parser().parse_args(['tables', str(path), '--out', str(tmp_path)])
    commands = {row: tables._parse(parsed, plan.arguments(row)) for row in plan.rows}
    seen = {
        tuple(sorted((k, str(v)) for k, v in vars(command).items()))
        for command in commands.values()
    }
    assert len(seen) == len(commands), 'two rows are the same'


def plan_of(tmp_path, **changes):
    document = {'title': 'T', 'rows': {'base': [], 'less': ['--ablation', 'fewer']}}
    path = tmp_path / 'plan.yaml'
    path.write_text(yaml.safe_dump(document | {'against': 'base'} | changes))
    return path


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'against': 'bass'}, "against: there is no row 'bass'"),
        ({'rows': {'A b': []}}, 'rows.A b: a name has'),
        ({'rows': {'base': ['--ablation-seed', 1]}}, 'rows.base: a list of strings is needed'),
        ({'rows': {'base': '--ablation fewer'}}, 'rows.base: a list of strings is needed'),
        ({'row': {}}, 'row is unknown'),
        ({'policies': {'p': {}}}, 'training is missing'),
        ({'training': 'c', 'policies': {'p': 3}}, 'policies.p: a mapping is needed, not 3'),
        (
            {'training': 'c', 'policies': {'p': {'model': {'from': '{policies}/q'}}}},
            "policies.p: there is no policy 'q' above it",
        ),
        ({'rows': {'base': ['--policy', '{policies}/q/policy']}}, "base: there is no policy 'q'"),
    ],
)
def test_a_plan_with_a_fault_names_it(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        read_plan(plan_of(tmp_path, **changes))


@pytest.mark.parametrize(
    ('rows', 'message'),
    [
        ({'base': ['--ablaton', 'fewer']}, 'an evaluation has no option --ablaton'),
        ({'base': ['--ablation', 'fever']}, "invalid choice: 'fever'"),
        ({'base': ['--inits', '50']}, 'in libero_object a task has the saved initial states'),
    ],
)
def test_a_row_with_a_fault_is_found_before_any_row_runs(tmp_path, capsys, rows, message):
    path = plan_of(tmp_path, rows={'first': [], **rows})
    assert main(['tables', str(path), '--out', str(tmp_path / 'out'), '--policy', 'p']) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_a_row_that_is_not_there(tmp_path, capsys):
    path = plan_of(tmp_path)
    assert main(['tables', str(path), '--out', str(tmp_path), '--rows', 'more']) == 2
    assert 'has no more; base, less' in capsys.readouterr().err


def test_the_table_has_pairs_and_says_what_is_not_measured(tmp_path, capsys):
    path = plan_of(tmp_path, rows={'base': [], 'less': [], 'later': []})
    for row, outcomes in (('base', [True] * 10), ('less', [True] * 6 + [False] * 4)):
        records = [
            EpisodeRecord(
                'libero_object', 0, n, 0, 'x', success, 100 + 10 * (row == 'less'),
                kept={'wrist': [8]}, latency_ms=[18.0],
            )
            for n, success in enumerate(outcomes)
        ]  # fmt: skip
        header = {'conditions': Conditions().as_dict(), 'versions': {}}
        write_document(result_path(tmp_path, row), summarise(header, {}, records, {'ratio': 0.72}))
    picture = tmp_path / 'plots/p.png'
    assert (
        main(['tables', str(path), '--out', str(tmp_path), '--show', '--plot', str(picture)]) == 0
    )
    assert picture.stat().st_size > 10_000
    said = capsys.readouterr().out
    assert '| base | 10 of 10 | 72.2% to 100.0% | 8.0 | 72.0% | 18 ms |  |  |  |' in said
    assert '| less | 6 of 10 | 31.3% to 83.2% | 8.0 | 72.0% | 18 ms | -40.0 (' in said
    assert '10 pairs | 0.12 | 110 and 100 |' in said
    assert '| later | not measured |' in said
    assert (tmp_path / 'table.md').read_text().strip() == table(read_plan(path), tmp_path).strip()


def test_the_policies_of_a_table_are_trained_once_and_before_its_rows(tmp_path, capsys):
    common = {
        'model': {'preset': 'libero-tiny', 'changes': train_rig.MODEL},
        'data': {'paths': [str(train_rig.write_file(tmp_path / 'data'))]},
        'steps': 2,
        'batch_size': 4,
    }
    (tmp_path / 'common.yaml').write_text(yaml.safe_dump(common))
    further = {'model': {'preset': None, 'from': '{policies}/base', 'changes': {}}, 'steps': 1}
    changes = {'base': {}, 'further': further, 'unused': {'steps': 3}}
    path = plan_of(
        tmp_path,
        rows={name: ['--policy', f'{{policies}}/{name}/policy'] for name in changes},
        training='common.yaml',
        policies=changes,
    )
    command = ['tables', str(path), '--out', str(tmp_path / 'out'), '--train-only', '--rows']
    before = signal.getsignal(signal.SIGINT)
    assert main([*command, 'further']) == 0
    assert signal.getsignal(signal.SIGINT) is before
    said = capsys.readouterr().out
    assert said.index('training base:') < said.index('training further:')
    runs = {run.name: run for run in (tmp_path / 'out/policies').iterdir() if run.is_dir()}
    assert set(runs) == {'base', 'further'}
    provenance = load_manifest(runs['further'] / 'policy').provenance
    assert provenance['steps'] == 1
    assert provenance['config']['model']['from'] == str(runs['base'])
    assert main([*command, 'further']) == 0
    assert 'training' not in capsys.readouterr().out
    (runs['base'] / 'policy').rename(runs['base'] / 'gone')
    assert main([*command, 'base']) == 0  # it was trained to its end
    assert (runs['base'] / 'policy').is_dir()
    (tmp_path / 'common.yaml').write_text(yaml.safe_dump(common | {'batch_size': 3}))
    assert main([*command, 'base']) == 1  # a row of another run
    assert 'batch_size was 4, is now 3' in capsys.readouterr().err
    assert main([*command, 'base', '--policy', 'p']) == 2
    assert 'trains the policies of its rows' in capsys.readouterr().err
    assert main(['tables', str(path), '--out', str(tmp_path), '--show', '--beside', 'r.json']) == 2
    assert '--beside is for the plot' in capsys.readouterr().err
