"""Episodes whose observations come late, through bridge, policy node and executor."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.sim


def test_an_episode_under_delay_through_the_real_nodes(tmp_path):
    """In a process of its own, which initialises rclpy."""
    out = tmp_path / 'delays.json'
    command = [
        sys.executable,
        '-m',
        'lightvla_ros.cli',
        'bench',
        'delays',
        '--json',
        str(out),
        '--tasks',
        '0',
        '--real-time-factor',
        '1',
    ]
    command += ['--delay', '100', '--horizon', '8', '--variant', 'both', '--jitter', '30']
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    header, record = map(json.loads, out.with_suffix('.jsonl').read_text().splitlines())
    assert header['policy']['name'] == 'libero-tiny'
    assert (record['error'], record['variant']) == ('', 'both')
    assert min(record['late_ms']) >= 100
    assert len(record['late_ms']) > 10
    assert record['jumps']
    (point,) = json.loads(out.read_text())['points']
    assert point['seam_mm']['p95'] > 0
    assert out.with_suffix('.png').stat().st_size > 10_000
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, 'nothing is left to do'
    assert len(out.with_suffix('.jsonl').read_text().splitlines()) == 2
    assert '100     30    0%     8 both' in done.stdout
