"""What `lightvla demo` understands, and how it adds up."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from lightvla_ros.cli import main
from lightvla_ros.cli.arguments import parse_range
from lightvla_ros.cli.demo import add_arguments, options_from
from lightvla_ros.nodes.demo.report import DemoOptions, StageStatistics, compare, summary
from lightvla_ros.sim.episode import EpisodeSpec
from lightvla_ros.sim.recording import Recording


def _options(*arguments):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return options_from(parser.parse_args(arguments))


def test_default_is_two_tasks_of_each_suite_with_the_bundled_policy():
    options = _options()
    assert options.replays == ()
    assert [(spec.suite, spec.task) for spec in options.episodes] == [
        ('libero_object', 1),
        ('libero_object', 2),
        ('libero_spatial', 1),
        ('libero_spatial', 2),
    ]
    assert (options.policy / 'manifest.json').is_file()
    assert options.video


def test_the_proof_is_80_replays_without_videos():
    options = _options('--replay', '--suite', 'all', '--tasks', '0-9', '--inits', '0-3')
    assert len(set(options.replays)) == 80
    assert options.episodes == ()
    assert options.policy is None
    assert not options.video
    assert _options('--replay', '--video').video


def test_policy_runs_what_it_is_asked_to():
    arguments = ('--policy', 'p', '--suite', 'libero_10', '--tasks', '3,5-6', '--inits', '0-19')
    options = _options(*arguments, '--episodes', '21', '--no-video')
    assert options.replays == ()
    assert len(options.episodes) == 21
    assert options.episodes[20] == EpisodeSpec('libero_10', 5, 0)
    assert not options.video


@pytest.mark.parametrize('text', ['5-3', '3-', '-3', '', '1,,2', 'a', '1-2-3', '0.5'])
def test_ranges_are_never_guessed(text, capsys):
    with pytest.raises(SystemExit):
        main(['demo', f'--tasks={text}'])
    assert f'{text!r} is not a list such as 0-3,7' in capsys.readouterr().err
    assert parse_range('0-3,7') == (0, 1, 2, 3, 7)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--episodes', '0'], "'0' is not a whole number above 0"),
        (['--episodes=-1'], "'-1' is not a whole number above 0"),
        (['--replay', '--mode', 'wall_clock'], '--replay needs --mode lockstep'),
        (['--replay', '--policy', 'p'], 'not allowed with argument'),
        (['--suite', 'libero_subject'], 'invalid choice'),
    ],
)
def test_arguments_that_contradict(arguments, message, capsys):
    try:
        code = main(['demo', *arguments])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert message in capsys.readouterr().err


def test_out_that_is_a_file(tmp_path, capsys):
    pytest.importorskip('rclpy')
    (tmp_path / 'out').touch()
    assert main(['demo', '--out', str(tmp_path / 'out')]) == 1
    assert capsys.readouterr().err == f'lightvla demo: {tmp_path / "out"}: File exists\n'


def _recording(spec, actions, end=0.0):
    return Recording(spec, True, np.asarray(actions, float), np.array([end]), {})


def test_comparison_sees_every_difference(tmp_path):
    spec = EpisodeSpec('libero_object', 0, 0)
    actions = np.zeros((3, 7))
    direct = _recording(spec, actions)
    through = {'error': '', 'success': True, 'steps': 3}

    same = compare(direct, through, _recording(spec, actions).save(tmp_path))
    assert (same['same_outcome'], same['same_end_state'], same['round_trip_error']) == (1, 1, 0)

    other = compare(direct, through, _recording(spec, actions + 1e-3, 0.1).save(tmp_path))
    assert (other['same_outcome'], other['same_end_state']) == (True, False)
    assert other['round_trip_error'] == pytest.approx(1e-3)

    path = _recording(spec, actions).save(tmp_path)
    assert not compare(direct, {**through, 'success': False}, path)['same_outcome']
    assert not compare(direct, {**through, 'steps': 2}, path)['same_outcome']
    failed = compare(direct, {**through, 'error': 'no OpenGL'}, tmp_path / 'none.npz')
    assert (failed['same_outcome'], failed['round_trip_error']) == (False, None)


def test_errors_are_never_counted_as_failed(tmp_path):
    spec = EpisodeSpec('libero_object', 0, 0)
    options = DemoOptions(tmp_path, Path('p'), (), (spec,), False, '', '')
    results = [
        {'success': True, 'error': '', 'renderer': 'egl'},
        {'success': False, 'error': ''},
        {'success': False, 'error': 'the simulator broke'},
    ]
    statistics = StageStatistics()
    for value in range(101):
        statistics.add({'inference': value}, {'third_person': 3, 'wrist': value % 2})
    document = summary(options, results, [], statistics, finished=True)
    assert (document['episodes'], document['successes'], document['errors']) == (2, 1, 1)
    assert document['chunks'] == 101
    assert document['stage_ms']['inference'] == {'p50': 50, 'p95': 95, 'p99': 99, 'max': 100}
    assert document['kept_tokens']['all']['mean'] == pytest.approx(3.5, abs=0.01)
    assert document['policy'] == 'p'
    json.dumps(document, allow_nan=False)


def test_summary_of_replays_names_no_policy_and_stays_json(tmp_path):
    spec = EpisodeSpec('libero_object', 0, 0)
    options = DemoOptions(tmp_path, None, (spec,), (), False, 'cheap', 'lockstep')
    failed = {'error': 'no chunk', 'success': False}
    replay = {'through_ros': failed, **compare(_recording(spec, []), failed, tmp_path)}
    document = summary(options, [], [replay], StageStatistics(), finished=True)
    assert document['policy'] is None
    assert (document['replay']['episodes'], document['replay']['same_outcome']) == (1, 0)
    assert document['errors'] == 1
    json.dumps(document, allow_nan=False)
