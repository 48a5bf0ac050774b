"""Folders of relative symbolic links, as a hub's cache has them: read, and never passed on."""

import shutil

import pytest
from published_folder import tiny_published_config, write_published

from lightvla_ros.cli import main
from lightvla_ros.contract import load_manifest
from lightvla_ros.export.export import copy_weights
from lightvla_ros.export.import_checkpoint import import_policy
from lightvla_ros.policy.policy import Policy
from lightvla_ros.vla.weights import load_model


def hub_cache(folder, root):
    """``snapshots/REVISION/FILE`` -> ``../../blobs/HASH``; returns the snapshot."""
    snapshot, blobs = root / 'snapshots' / 'abc123', root / 'blobs'
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for index, path in enumerate(sorted(folder.iterdir())):
        shutil.copyfile(path, blobs / f'{index:040x}')
        (snapshot / path.name).symlink_to(f'../../blobs/{index:040x}')
    return snapshot


def blobs_of(snapshot):
    return {path: path.read_bytes() for path in snapshot.parents[1].glob('blobs/*')}


def stands_alone(policy, cache):
    """No link, no shared content: whatever becomes of the cache, the folder is whole."""
    assert not [path for path in policy.iterdir() if path.is_symlink()]
    for blob in cache.glob('blobs/*'):
        blob.write_bytes(b'cleared in place')
    shutil.rmtree(cache)
    return load_manifest(policy)


def test_an_export_from_a_cache_stands_alone(small_weights, tmp_path):
    """The links themselves were hard-linked: dangling in the new folder."""
    snapshot = hub_cache(small_weights, tmp_path / 'hub')
    copy_weights(snapshot, tmp_path / 'out')
    stands_alone(tmp_path / 'out', tmp_path / 'hub')
    load_model(tmp_path / 'out')


def test_an_export_of_true_files_does_not_store_the_weights_twice(small_weights, tmp_path):
    weights = shutil.copytree(small_weights, tmp_path / 'weights')
    copy_weights(weights, tmp_path / 'out')
    assert (tmp_path / 'out' / 'model.safetensors').samefile(weights / 'model.safetensors')


def test_an_import_from_a_cache_stands_alone(tmp_path):
    write_published(tmp_path / 'folder', tiny_published_config())
    snapshot = hub_cache(tmp_path / 'folder', tmp_path / 'hub')
    import_policy(snapshot, tmp_path / 'policy')
    stands_alone(tmp_path / 'policy', tmp_path / 'hub')


def test_a_cache_with_a_dangling_link_is_one_line(tmp_path, capsys):
    write_published(tmp_path / 'folder', tiny_published_config())
    snapshot = hub_cache(tmp_path / 'folder', tmp_path / 'hub')
    for name in ('config.json', 'model-00002-of-00003.safetensors'):
        (snapshot / name).resolve().unlink()
        assert (
            main(['import', '--checkpoint', str(snapshot), '--out', str(tmp_path / 'policy')]) == 1
        )
        (line,) = capsys.readouterr().err.splitlines()
        assert f'{name}: ' in line
        assert 'missing' in line
        (snapshot / name).unlink()
        shutil.copyfile(tmp_path / 'folder' / name, snapshot / name)


@pytest.mark.parametrize('engine', ['onnxruntime', 'openvino'])
def test_a_policy_in_a_cache_runs_and_verifying_it_leaves_the_cache_as_it_is(
    small_policy, tmp_path, engine
):
    snapshot = hub_cache(small_policy, tmp_path / 'hub')
    Policy.load(snapshot, engine, unchecked=True).replay_golden()
    before = blobs_of(snapshot)
    assert main(['verify', str(snapshot), '--engine', 'onnxruntime']) == 0
    assert blobs_of(snapshot) == before
