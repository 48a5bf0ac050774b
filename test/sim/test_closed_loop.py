"""The closed loop as a user starts it: real processes, real DDS, real LIBERO."""

import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytestmark = pytest.mark.sim
# A task of both suites that the bundled policy solves from all of 20 initial states (results)
SOLVED = '1'


def _demo(out, *arguments):
    return [sys.executable, '-m', 'lightvla_ros.cli', 'demo', '--out', str(out), *arguments]


def test_a_replay_ends_as_it_does_directly(tmp_path):
    arguments = ('--replay', '--suite', 'libero_spatial', '--tasks', '0', '--inits', '0')
    arguments += ('--no-video',)
    result = subprocess.run(_demo(tmp_path, *arguments), timeout=600)
    assert result.returncode == 0
    summary = json.loads((tmp_path / 'summary.json').read_text())
    replay = summary['replay']
    assert (replay['episodes'], replay['same_outcome'], replay['successes']) == (1, 1, 1)
    assert replay['same_end_state'] == 1
    assert replay['max_round_trip_error'] < 1e-6
    # one observation for each chunk of 8 steps, and no frame was drawn for nothing
    for episode in summary['replays']:
        run = episode['through_ros']
        assert run['frames'] == run['chunks'] == -(-run['steps'] // 8)
        assert (run['holds'], run['refused']) == (0, 0)


def test_bundled_policy_solves_two_episodes_and_one_again_the_same(tmp_path, bundled_policy):
    arguments = ('--policy', str(bundled_policy), '--suite', 'all', '--tasks', SOLVED)
    result = subprocess.run(_demo(tmp_path, *arguments), timeout=600)
    assert result.returncode == 0
    summary = json.loads((tmp_path / 'summary.json').read_text())
    assert summary['finished']
    assert (summary['episodes'], summary['successes']) == (2, 2)
    runs = summary['results']
    assert [run['refused'] for run in runs] == [0, 0]
    assert summary['chunks'] == sum(run['chunks'] for run in runs)
    assert 1 <= summary['kept_tokens']['all']['mean'] <= 128
    for stage in ('preprocess', 'inference', 'postprocess', 'image_to_chunk'):
        assert summary['stage_ms'][stage]['p50'] <= summary['stage_ms'][stage]['max']
    for run in runs:
        assert (tmp_path / run['video']).stat().st_size > 50_000
    assert runs[1]['video'] == f'episode-libero_spatial-{SOLVED}-0.mp4'

    # again, and without the frames for the video: lockstep does not depend on who looks, or when
    arguments += ('--suite', 'libero_spatial', '--no-video')
    result = subprocess.run(_demo(tmp_path / 'again', *arguments), timeout=600)
    assert result.returncode == 0
    name = f'executed/libero_spatial-{SOLVED}-0-0.npz'
    first, again = np.load(tmp_path / name), np.load(tmp_path / 'again' / name)
    np.testing.assert_array_equal(again['actions'], first['actions'])
    np.testing.assert_array_equal(again['end_state'], first['end_state'])


def test_ctrl_c_ends_everything_and_leaves_a_summary(tmp_path, bundled_policy):
    arguments = ('--policy', str(bundled_policy), '--suite', 'libero_object', '--no-video')
    log = tmp_path / 'log'
    with log.open('w') as file:
        demo = subprocess.Popen(_demo(tmp_path, *arguments), stderr=file)
    node_log = tmp_path / 'logs' / 'policy_node.log'
    deadline = time.monotonic() + 120
    while not (node_log.exists() and 'RUNNING' in node_log.read_text()):
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    demo.send_signal(signal.SIGINT)
    assert demo.wait(60) == 130
    assert not json.loads((tmp_path / 'summary.json').read_text())['finished']
    assert node_log.read_text().rstrip().endswith('UNCONFIGURED: shutdown'), 'it must end in order'


def test_by_the_wall_clock_the_robot_moves_and_never_waits(tmp_path, bundled_policy):
    arguments = ('--policy', str(bundled_policy), '--suite', 'libero_object', '--no-video')
    result = subprocess.run(_demo(tmp_path, '--mode', 'wall_clock', *arguments), timeout=600)
    assert result.returncode == 0
    run = json.loads((tmp_path / 'summary.json').read_text())['results'][0]
    assert (run['mode'], run['error']) == ('wall_clock', '')
    assert run['steps'] == 280 or run['success']
    assert run['chunks'] >= 5
    assert run['refused'] == 0
    frames = -(-run['steps'] // 8)
    assert run['frames'] == frames, 'one observation for every 8 steps, whatever the policy does'
    assert run['holds'] > 0, 'before the first chunk there is nothing to execute'


def test_policy_that_cannot_be_loaded_is_an_error_and_no_failed_episode(tmp_path, bundled_policy):
    broken = tmp_path / 'broken'
    shutil.copytree(bundled_policy, broken)
    (broken / 'act.onnx').unlink()
    result = subprocess.run(
        _demo(tmp_path, '--policy', str(broken)), capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 1
    assert 'act.onnx: listed in manifest.json but missing' in result.stderr
    assert json.loads((tmp_path / 'summary.json').read_text())['episodes'] == 0
