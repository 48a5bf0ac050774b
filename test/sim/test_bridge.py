"""The bridge with real LIBERO behind it, over real topics."""

import signal
import subprocess
import sys

import numpy as np
import pytest
from bridge_rig import PERIOD, bridge_rig, chunk

from lightvla_ros.nodes.conversions import picture_from_message

pytestmark = pytest.mark.sim
SIZE = 64
STILL = np.array([0, 0, 0, 0, 0, 0, -1.0])
UP = np.array([0, 0, 0.5, 0, 0, 0, -1.0])


@pytest.fixture(scope='module')
def rig():
    with (
        pytest.MonkeyPatch.context() as monkeypatch,
        bridge_rig(monkeypatch, autostart=False, camera_size=SIZE) as built,
    ):
        yield built


@pytest.fixture
def lockstep(rig):
    """Start an episode in lockstep."""

    def start(**parameters):
        defaults = {
            'camera_every': 8,
            'resend_period': 1.0,
            'chunk_timeout': 60.0,
            'init_state': 0,
            'task': 0,
        }
        return rig.start(mode='lockstep', **{**defaults, **parameters})

    return start


def test_parts_of_an_observation_have_one_stamp(rig, lockstep):
    start = lockstep()['start']
    rig.until(lambda: all(rig.seen(name, start) for name in rig.peer.stamps), 'all four topics')
    assert {rig.seen(name, start)[0] for name in rig.peer.stamps} == {start}
    assert start > 0
    image = picture_from_message(rig.peer.images[-1]).decode()
    assert image.shape == (SIZE, SIZE, 3)
    assert image.std() > 10, 'an empty picture'


def test_lockstep_waits_for_the_chunk_that_names_its_observation(rig, lockstep):
    episode = lockstep(resend_period=0.2)
    start = episode['start']
    ruined = chunk(start, [UP] * 8)
    ruined.steps[0].translation.x = float('nan')
    for message in (chunk(start, [UP] * 8, observation=start - 1), chunk(start, []), ruined):
        rig.peer.chunks.publish(message)
    rig.until(lambda: len(rig.seen('wrist', start)) >= 3, 'the same observation again')
    assert set(rig.seen('wrist', start)) == {start}
    assert rig.peer.times[-1] == start, 'time must stand still'

    rig.peer.chunks.publish(chunk(start, [STILL] * 8))
    rig.until(lambda: rig.seen('wrist', start)[-1] > start, 'the next observation')
    assert rig.seen('wrist', start)[-1] == rig.peer.times[-1] == start + 8 * PERIOD
    rig.call_reset()
    result = rig.result(episode['episode'])
    assert result['error'] == 'the episode was reset before its end'
    counts = [result[key] for key in ('chunks', 'ignored', 'holds', 'refused', 'steps')]
    assert counts == [1, 1, 1, 1, 8]
    assert result['frames'] == result['resent'] + 2


def test_frames_between_are_for_viewers_alone(rig, lockstep):
    start = lockstep(camera_every=2)['start']
    rig.peer.chunks.publish(chunk(start, [STILL] * 8))
    rig.until(lambda: start + 8 * PERIOD in rig.seen('wrist', start), 'the next observation')
    assert rig.seen('wrist', start) == [start + k * PERIOD for k in (0, 2, 4, 6, 8)]


def test_silence_ends_an_episode_with_an_error(rig, lockstep):
    episode = lockstep(resend_period=0.1, chunk_timeout=0.5)
    error = rig.result(episode['episode'])['error']
    assert error == (
        'no chunk for the observation within 0.5 s; the last answer was no chunk at all'
    )


def test_episode_that_cannot_begin_is_an_error(rig, lockstep):
    number = rig.peer.episodes[-1]['episode'] + 1
    rig.set(task=60)
    rig.call_reset()
    result = rig.result(number)
    assert result['error'] == 'libero_object has tasks 0 to 9, not 60'
    assert lockstep()['episode'] == number + 1, 'the next one runs'


def test_wall_clock_holds_still_to_the_limit_and_draws_only_what_it_sends(rig, lockstep):
    rig.result(lockstep(resend_period=0.1, chunk_timeout=0.5)['episode'])  # now nothing is running
    draws, poses = rig.draws, len(rig.peer.poses)
    episode = rig.start(mode='wall_clock', real_time_factor=50.0, camera_every=64)
    result = rig.result(episode['episode'])
    assert (result['error'], result['success']) == ('', False)
    assert result['steps'] == result['holds'] == episode['max_steps'] == 280
    assert result['chunks'] == 0
    assert result['frames'] == 5
    assert rig.draws - draws == 2 * result['frames']
    assert 0 < result['real_time_factor'] < 50
    rig.until(lambda: len(rig.peer.poses) - poses >= 5, 'all poses')
    moved = np.linalg.norm(np.subtract(rig.peer.poses[poses:], rig.peer.poses[poses]), axis=1)
    assert moved.max() < 0.01


def test_wall_clock_executes_what_is_valid_and_stops_when_told(rig):
    episode = rig.start(mode='wall_clock', real_time_factor=1.0, camera_every=4)
    start, poses = episode['start'], len(rig.peer.poses)
    late = chunk(start, [-UP] * 64, valid_until=start - 1)
    rig.peer.chunks.publish(late)
    rig.until(lambda: len(rig.peer.poses) >= poses + 3, 'a few observations')
    rig.peer.chunks.publish(chunk(start, [UP] * 64, valid_until=start + 100 * PERIOD))

    def height():
        return rig.peer.poses[-1][2] - rig.peer.poses[poses][2]

    rig.until(lambda: height() > 0.05, 'the arm to rise')
    rig.peer.chunks.publish(chunk(start, []))
    seen = len(rig.peer.poses)
    rig.until(lambda: len(rig.peer.poses) >= seen + 5, 'the arm to come to rest')
    assert abs(rig.peer.poses[-1][2] - rig.peer.poses[-2][2]) < 0.003
    rig.call_reset()
    result = rig.result(episode['episode'])
    assert (result['chunks'], result['ignored'], result['refused']) == (1, 1, 0)
    assert result['holds'] >= 8


def test_time_never_goes_back_over_episodes(rig, lockstep):
    starts = [lockstep(init_state=state)['start'] for state in (0, 1, 0)]
    assert starts == sorted(set(starts))
    rig.until(lambda: rig.peer.times[-1] >= starts[-1], 'the clock')
    assert rig.peer.times == sorted(rig.peer.times)
    assert rig.peer.times[0] > 0


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize('when', ['building', 'waiting'])
def test_signals_end_it_in_order(rig, when, number):
    """While a scene is built nothing can interrupt MuJoCo, and the process has to end even so."""
    name = f'/process_{when}_{number}'
    command = [sys.executable, '-m', 'lightvla_ros.nodes.libero_bridge_node', '--ros-args']
    options = ['-r', f'__ns:={name}', '-r', '/clock:=clock', '-p', f'camera_size:={SIZE}']
    process = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True)
    try:
        topic = f'{name}/libero_bridge/result'
        rig.until(lambda: rig.peer.count_publishers(topic), 'the process')
        if when == 'waiting':
            images = []
            rig.peer.listen(f'{name}/wrist/image', images)
            rig.until(lambda: images, 'an observation')
        process.send_signal(number)
        _, log = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, log
    assert 'Traceback' not in log
