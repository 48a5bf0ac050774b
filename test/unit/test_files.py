"""A full disk is one line and leaves nothing that looks whole; one run writes a folder."""

import json
import multiprocessing
import os
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lightvla_ros.cli import main
from lightvla_ros.cli.exit_code import exit_code
from lightvla_ros.demonstrations.writer import IMAGES, DemonstrationWriter, Episode, Task
from lightvla_ros.evaluate.episodes import EpisodeRecord
from lightvla_ros.evaluate.journal import Journal
from lightvla_ros.export.untrained import write_untrained_weights
from lightvla_ros.files import (
    LOCK_NAME,
    LockedError,
    WriteError,
    lock_beside,
    one_writer,
    replace_whole,
    write_text,
)
from lightvla_ros.show.video import VideoWriter
from lightvla_ros.train.checkpoint import load_checkpoint, save_checkpoint
from lightvla_ros.train.logs import Logs
from lightvla_ros.vla.config import preset

MEGABYTE = 1_000_000
FULL = r'{name}: cannot be written: No space left on device; .* needed, \d\.\d MB are free$'


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip('mounting is not permitted here')
    yield folder
    subprocess.run(['umount', '-l', str(folder)], check=True)


def noise(size):
    return np.random.default_rng(0).integers(0, 256, size, np.uint8)


def fill(folder, leave=0):
    """Leave so many bytes on a disk."""
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    (folder / 'filler').write_bytes(bytes(max(0, free - leave)))


def the_rest(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != 'filler')


@pytest.mark.parametrize(
    ('name', 'write'),
    [
        ('text', lambda part: part.write_text('x' * 3 * MEGABYTE)),
        ('array.npy', lambda part: np.save(part, noise(3 * MEGABYTE))),
        ('arrays.npz', lambda part: np.savez(part, a=noise(3 * MEGABYTE))),
        ('weights.pt', lambda part: torch.save(torch.from_numpy(noise(3 * MEGABYTE)), part)),
        (
            'model.safetensors',
            lambda part: save_file({'a': torch.from_numpy(noise(3 * MEGABYTE))}, part),
        ),
    ],
)
def test_whatever_a_library_says_of_a_full_disk_is_one_line(small_disk, capsys, name, write):
    path = small_disk / name
    path.write_text('the old one')

    def work():
        with replace_whole(path, 3 * MEGABYTE) as part:
            write(part)

    assert exit_code('command', work) == 1
    said = capsys.readouterr().err.strip()
    assert re.search(r'3\.0 MB are needed, 2\.\d MB are free$', said)
    assert re.search(FULL.format(name=name), said)
    assert '\n' not in said
    assert path.read_text() == 'the old one'
    assert the_rest(small_disk) == [name]


def test_a_limit_of_the_process_is_named(tmp_path):
    script = (
        'import resource, sys; from pathlib import Path; from lightvla_ros.files import write_text;'
        'resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));'
        'write_text(Path(sys.argv[1]), "x" * 5000)'
    )
    path = tmp_path / 'text'
    done = subprocess.run(
        [sys.executable, '-c', script, path], capture_output=True, text=True, check=False
    )
    assert f'WriteError: {path}: cannot be written: File too large; 0.0 MB are' in done.stderr
    assert not list(tmp_path.iterdir())


def test_another_error_is_not_taken_for_a_full_disk(tmp_path):
    def work():
        with replace_whole(tmp_path / 'a') as part:
            part.write_text('half')
            (tmp_path / 'no').read_text()

    with pytest.raises(FileNotFoundError):
        work()
    assert not list(tmp_path.iterdir())


def test_a_full_disk_keeps_the_checkpoint_before(small_disk):
    path = small_disk / 'checkpoint.pt'
    save_checkpoint(path, {'step': 1, 'weights': {'a': torch.zeros(1000)}})
    with pytest.raises(WriteError, match=r'checkpoint\.pt: .*; 4\.0 MB are needed, '):
        save_checkpoint(path, {'step': 2, 'weights': {'a': torch.rand(MEGABYTE)}})
    assert load_checkpoint(path)['step'] == 1
    assert the_rest(small_disk) == ['checkpoint.pt']


def test_a_full_disk_leaves_no_part_of_a_row_in_the_log(small_disk):
    logs = Logs(small_disk, ('wrist',), 0)
    logs.write({'step': 1.0, 'loss': 0.5})
    before = (small_disk / 'log.csv').read_bytes()
    fill(small_disk)
    row = {name: 0.123456 for name in before.decode().splitlines()[0].split(',')}

    def work():
        for step in range(100):
            logs.write({**row, 'step': float(step)})

    with pytest.raises(WriteError, match='cannot be written: No space left on device'):
        work()
    logs.close()
    lines = (small_disk / 'log.csv').read_text().splitlines()
    assert len({line.count(',') for line in lines}) == 1


def test_a_full_disk_keeps_the_log_of_a_run_that_goes_on(small_disk):
    logs = Logs(small_disk, ('wrist',), 0)
    logs.write({'step': 1.0, 'loss': 0.5})
    logs.close()
    before = (small_disk / 'log.csv').read_bytes()
    fill(small_disk)
    with pytest.raises(WriteError, match='cannot be written'):
        Logs(small_disk, ('wrist',), 1)
    assert (small_disk / 'log.csv').read_bytes() == before


def test_a_full_disk_leaves_whole_lines_in_the_journal(small_disk):
    path = small_disk / 'r.jsonl'
    record = EpisodeRecord('libero_object', 0, 0, 0, success=True, latency_ms=[1.5] * 400)
    fill(small_disk, leave=20_000)

    def work():
        with Journal(path, {}) as journal:
            for _ in range(100):
                journal.add(record)

    with pytest.raises(WriteError, match=FULL.format(name='r.jsonl')):
        work()
    lines = path.read_text().splitlines()
    assert len(lines) > 1
    assert all(json.loads(line) is not None for line in lines)
    assert path.read_text().endswith('\n')


def test_a_full_disk_leaves_no_video(small_disk):
    video = VideoWriter(small_disk / 'episode.mp4')
    for seed in range(20):
        frame = np.random.default_rng(seed).integers(0, 256, (480, 640, 3), np.uint8)
        video.add(frame)
    with pytest.raises(WriteError, match=r'episode\.mp4: cannot be written: 0 of 20 frames'):
        video.close()
    assert not the_rest(small_disk)


def test_a_video_is_there_when_it_is_whole(tmp_path):
    video = VideoWriter(tmp_path / 'episode.mp4')
    video.add(np.zeros((480, 640, 3), np.uint8), repeat=3)
    assert not (tmp_path / 'episode.mp4').exists()
    video.close()
    assert [path.name for path in tmp_path.iterdir()] == ['episode.mp4']
    video = VideoWriter(tmp_path / 'other.mp4')
    video.add(np.zeros((480, 640, 3), np.uint8))
    video.discard()
    assert [path.name for path in tmp_path.iterdir()] == ['episode.mp4']


def episode():
    images = {camera: noise(40 * 64 * 64 * 3).reshape(40, 64, 64, 3) for camera in IMAGES}
    return Episode(
        seed=1,
        instruction='pick up the milk',
        goal=['in', 'milk_1', 'basket_1'],
        actions=np.zeros((40, 7)),
        states=np.zeros((40, 45)),
        proprio=np.zeros((40, 8)),
        robot=np.zeros((40, 9)),
        joints=np.zeros((40, 7)),
        rows=np.arange(40),
        chunks=np.zeros((40, 8, 7), np.float32),
        images=images,
        segmentation={camera: picture[..., 0] for camera, picture in images.items()},
    )


def test_a_full_disk_keeps_the_episodes_that_were_collected(small_disk):
    (small_disk / 'milk.bddl').write_text('(define)')
    task = Task('libero_object', 7, 'pick up', small_disk / 'milk.bddl', 'cheap', ('a',), 64)
    with DemonstrationWriter(small_disk, task) as writer:
        path = writer.path
        writer.drop(0)
        fill(small_disk, leave=200_000)
        with pytest.raises(WriteError, match=FULL.format(name='milk_demo.hdf5')):
            writer.drop(1)
        (small_disk / 'filler').write_bytes(bytes(10))
        with pytest.raises(WriteError, match=r'milk_demo\.hdf5: .*; 2\.\d MB are needed, 2\.\d MB'):
            writer.add(episode())
    with h5py.File(path) as file:
        assert not file['data'].keys()
        assert file['data'].attrs['failed_seeds'].tolist() == [0]
    assert path.stat().st_size < 100_000


# --- one run writes a folder


def hold(folder, held, let_go):
    with one_writer(folder):
        held.set()
        let_go.wait(60)


def test_two_runs_into_one_folder_are_refused_and_told_who_it_is(tmp_path):
    context = multiprocessing.get_context('fork')
    held, let_go = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path / 'run', held, let_go))
    other.start()
    assert held.wait(60)
    try:
        who = rf'run: is being written by process {other.pid} on {os.uname().nodename} \('
        with pytest.raises(LockedError, match=who), one_writer(tmp_path / 'run'):
            pass
    finally:
        let_go.set()
        other.join()
    with one_writer(tmp_path / 'run'):
        pass
    assert not list((tmp_path / 'run').iterdir())


def test_a_dead_runs_lock_is_taken_over(tmp_path):
    context = multiprocessing.get_context('fork')
    held = context.Event()
    other = context.Process(target=hold, args=(tmp_path, held, context.Event()))
    other.start()
    assert held.wait(60)
    other.kill()
    other.join()
    assert f'process {other.pid} ' in (tmp_path / LOCK_NAME).read_text()
    with one_writer(tmp_path):
        assert f'process {os.getpid()} ' in (tmp_path / LOCK_NAME).read_text()
    # whoever runs in its place as a process of that number holds nothing
    (tmp_path / LOCK_NAME).write_text(f'process {os.getpid()} on {os.uname().nodename}')
    with one_writer(tmp_path):
        pass


@pytest.mark.parametrize(
    'command',
    [
        ['-m', 'lightvla_ros.cli', 'train', '--config', 'config/train/libero_tiny_base.yaml'],
        ['models/collect.py', '--tasks', '0'],
        ['-m', 'lightvla_ros.cli', 'demo', '--replay'],
        ['-m', 'lightvla_ros.cli', 'show', '--policy', 'models/libero_tiny'],
    ],
)
def test_commands_refuse_a_folder_that_is_being_written(tmp_path, command):
    root = Path(__file__).parents[2]
    with one_writer(tmp_path):
        done = subprocess.run(
            [sys.executable, *command, '--out', tmp_path],
            cwd=root,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert f'{tmp_path}: is being written by process {os.getpid()} on ' in done.stderr
    assert done.stderr.count('\n') == 1
    assert not list(tmp_path.iterdir())


def test_a_second_export_into_a_folder_is_refused(tmp_path, capsys):
    weights = tmp_path / 'weights'
    write_untrained_weights(weights, preset('libero-tiny'))
    out = tmp_path / 'out'
    with one_writer(out, lock_beside(out)):
        assert main(['export', '--policy', str(weights), '--out', str(out)]) == 1
    assert f'{out}: is being written by process {os.getpid()} on ' in capsys.readouterr().err
    assert not out.exists()


def test_a_text_is_written_as_a_whole(tmp_path):
    write_text(tmp_path / 'a.json', 'ü')
    assert (tmp_path / 'a.json').read_bytes() == 'ü'.encode()
    assert [path.name for path in tmp_path.iterdir()] == ['a.json']
