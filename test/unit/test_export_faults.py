"""Exports that go wrong, or that lost something on the way."""

import errno
import subprocess

import numpy as np
import pytest

from lightvla_ros.cli import main
from lightvla_ros.contract import load_manifest
from lightvla_ros.files import WriteError, whole_folder

pytest.importorskip('torch')


def test_an_export_keeps_the_golden_observations_of_the_folder(bundled_policy, tmp_path):
    out = tmp_path / 'out'
    assert main(['export', '--policy', str(bundled_policy), '--out', str(out)]) == 0
    with np.load(bundled_policy / 'golden.npz') as ours, np.load(out / 'golden.npz') as theirs:
        assert len(ours['images']) > 3
        for name in ('images', 'instruction', 'proprio', 'kept'):
            np.testing.assert_array_equal(theirs[name], ours[name])
    assert load_manifest(out).golden is not None


# --- a full disk


@pytest.fixture
def small_disk(tmp_path):
    """A mounted file system of 64 kB."""
    place = tmp_path / 'disk'
    place.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip('there is no mount command here')
    if done.returncode:
        pytest.skip(f'mounting is not permitted here: {done.stderr.strip()}')
    yield place
    subprocess.run(['umount', str(place)], check=True)


@pytest.mark.parametrize('kind', ['mount point', 'link', 'new folder'])
def test_an_export_onto_a_full_disk_names_it_and_leaves_nothing(
    kind, small_disk, small_weights, tmp_path, capsys
):
    out = small_disk
    if kind == 'link':
        (small_disk / 'there').mkdir()
        out = tmp_path / 'link'
        out.symlink_to(small_disk / 'there')
    elif kind == 'new folder':
        out = small_disk / 'new'
    assert main(['export', '--policy', str(small_weights), '--out', str(out)]) == 1
    line = capsys.readouterr().err.strip()
    assert 'No space left on device' in line
    assert str(out) in line
    assert '\n' not in line
    assert out.exists() == (kind != 'new folder')
    assert not out.exists() or not list(out.iterdir())


def _fail_halfway(path):
    with whole_folder(path):
        (path / 'half').touch()
        (path / 'within').mkdir()
        (path / 'within' / 'half').touch()
        raise OSError(errno.ENOSPC, 'No space left on device')


@pytest.mark.parametrize('kind', ['new', 'empty', 'link'])
def test_half_a_folder_is_not_left_and_the_first_cause_is_named(kind, tmp_path):
    path = tmp_path / 'folder'
    if kind == 'empty':
        path.mkdir()
    elif kind == 'link':
        (tmp_path / 'target').mkdir()
        path.symlink_to(tmp_path / 'target')
    with pytest.raises(WriteError, match='No space left on device'):
        _fail_halfway(path)
    assert path.exists() == (kind != 'new')
    assert not path.exists() or not list(path.iterdir())
