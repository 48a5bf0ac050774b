"""`lightvla eval` as a user starts it, in real LIBERO: directly, and through ROS the same."""

import json
import shutil
import subprocess
import sys

import pytest

from lightvla_ros.contract import load_manifest

pytestmark = pytest.mark.sim


def lightvla(*arguments):
    return subprocess.run(
        [sys.executable, '-m', 'lightvla_ros.cli', *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_direct_and_through_ros_end_in_the_same_state(tmp_path, bundled_policy):
    """Many chunks, each from the state that the last one left: a wrong bit would grow.

    In a layout that a seed draws; ``lightvla demo --replay`` runs saved states through ROS.
    """
    what = ('--policy', bundled_policy, '--suite', 'libero_spatial', '--tasks', 1)
    what += ('--layouts', 400_000)
    files = {through: tmp_path / f'{through}.json' for through in ('direct', 'ros')}
    for through, path in files.items():
        result = lightvla('eval', *what, '--through', through, '--json', path)
        assert result.returncode == 0, result.stderr
        successes = json.loads(path.read_text())['successes']
        assert f'{successes}/1' in result.stdout
    direct, ros = (json.loads(path.read_text()) for path in files.values())
    for document in (direct, ros):
        assert (document['episodes'], document['errors']) == (1, [])
    one, other = direct['all_episodes'][0], ros['all_episodes'][0]
    assert one['steps'] == 220 or one['success']
    for key in ('instruction', 'success', 'steps', 'end_state', 'motion', 'kept', 'renderer'):
        assert one[key] == other[key], key
    assert len(one['latency_ms']) == len(other['latency_ms']) == -(-one['steps'] // 8)
    said = lightvla('compare', *files.values())
    assert said.returncode == 0, said.stderr
    assert (
        '1 pairs: 1 with the same outcome and steps, 1 with an identical end state' in said.stdout
    )
    assert 'WARNING' not in said.stdout


def test_the_last_state_runs_and_one_more_is_found_before_anything_runs(tmp_path, bundled_policy):
    path = tmp_path / 'r.json'
    what = ('--policy', bundled_policy, '--suite', 'libero_object', '--tasks', 0)
    what += ('--max-steps', 10, '--replan', 4, '--json', path)
    result = lightvla('eval', *what, '--inits', '49-50')
    assert result.returncode == 2
    assert 'a task has the saved initial states 0 to 49, not 50' in result.stderr
    assert not path.exists()
    assert lightvla('eval', *what, '--inits', 49).returncode == 0
    document = json.loads(path.read_text())
    assert (document['episodes'], len(document['errors'])) == (1, 0)
    valid = document['all_episodes'][0]
    assert valid['steps'] == 10
    assert len(valid['latency_ms']) == 3, 'after 4 steps the policy looks again'


def test_verify_runs_episodes_on_the_engine_and_notes_their_success(tmp_path, bundled_policy):
    folder = shutil.copytree(bundled_policy, tmp_path / 'policy')
    path = tmp_path / 'episodes.json'
    what = ('--engine', 'onnxruntime', '--count', 0, '--episodes', 1, '--suite', 'libero_object')
    result = lightvla('verify', folder, *what, '--result', path)
    assert result.returncode == 0, result.stderr
    document = json.loads(path.read_text())
    (ours,) = (each for each in load_manifest(folder).verified if each.trials)
    assert ours.backend == 'onnxruntime-cpu'
    (trial,) = ours.trials
    assert (trial.kind, trial.source) == ('episodes', 'libero_object, cheap rendering')
    assert (trial.count, trial.successes) == (1, document['successes'])
    assert trial.low == document['success']['low']
    assert str(trial) in result.stdout
    assert str(trial) in lightvla('doctor', '--policy', folder).stdout
