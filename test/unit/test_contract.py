"""A policy folder is trusted only when everything in it fits together."""

import json
import shutil

import jsonschema
import numpy as np
import pytest

from lightvla_ros.contract import (
    MANIFEST_NAME,
    SCHEMA_PATH,
    amend_manifest,
    file_sha256,
    load_manifest,
    parse_manifest,
    write_manifest,
)
from lightvla_ros.errors import ContractError
from lightvla_ros.policy.policy import Policy
from lightvla_ros.sim.closed_loop import check_for_libero


@pytest.fixture
def folder(policy_dir, tmp_path):
    copy = tmp_path / 'policy'
    shutil.copytree(policy_dir, copy)
    return copy


@pytest.fixture
def document(policy_dir):
    return json.loads((policy_dir / MANIFEST_NAME).read_text())


def test_schema_is_valid():
    jsonschema.Draft202012Validator.check_schema(json.loads(SCHEMA_PATH.read_text()))


def test_exported_policy_is_trusted(policy_dir):
    manifest = load_manifest(policy_dir)
    assert [camera.name for camera in manifest.cameras] == ['third_person', 'wrist']
    assert manifest.patch_grid == (8, 8)
    assert len(manifest.fingerprint) == 64


def test_missing_file(folder):
    (folder / 'tokenizer.json').unlink()
    with pytest.raises(ContractError, match=r'tokenizer.json: listed in manifest.json but missing'):
        load_manifest(folder)


def test_extra_file(folder):
    (folder / 'notes.txt').write_text('x')
    with pytest.raises(ContractError, match=r'notes.txt: not listed in manifest.json'):
        load_manifest(folder)


def test_changed_file(folder):
    with (folder / 'act.onnx').open('ab') as file:
        file.write(b'\0')
    with pytest.raises(ContractError, match=r'act.onnx: SHA-256 is .* was changed or damaged'):
        load_manifest(folder)


def test_folder_in_place_of_a_file(folder):
    (folder / 'act.onnx').unlink()
    (folder / 'act.onnx').mkdir()
    with pytest.raises(ContractError, match='act.onnx: is a folder, not a file'):
        load_manifest(folder)


def test_nothing_is_written_that_would_not_load(folder, document):
    (folder / 'more').mkdir()
    before = (folder / MANIFEST_NAME).read_text()
    with pytest.raises(ContractError, match='more: not listed'):
        write_manifest(folder, document)
    assert (folder / MANIFEST_NAME).read_text() == before


def test_no_manifest(tmp_path):
    with pytest.raises(ContractError, match='is this a policy folder'):
        load_manifest(tmp_path)


def test_manifest_that_is_no_json(folder):
    (folder / MANIFEST_NAME).write_text('{')
    with pytest.raises(ContractError, match='not JSON'):
        load_manifest(folder)


def _set(path, value):
    def change(document):
        *parents, last = path
        for key in parents:
            document = document[key]
        document[last] = value

    return change


def _twice(document):
    document['cameras'][1]['name'] = 'third_person'


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (_set(['schema_version'], 1), 'schema_version is 1, this release reads 2; create'),
        (_set(['action', 'control_period'], 0), r'\$.action.control_period'),
        (_set(['action', 'q01'], [0.0] * 6), 'action.q01: 6 numbers, but 7 are needed'),
        (_set(['action', 'mask'], [True] * 8), 'action.mask: 8 numbers, but 7 are needed'),
        (_set(['proprio', 'q99'], [1.0] * 7), 'proprio.q99: 7 numbers, but the layout needs 8'),
        (_set(['proprio', 'q01'], [9.0] * 8), r'proprio: q01\[0\] = 9.0 is above q99\[0\]'),
        (_twice, "cameras: 'third_person' is listed twice"),
        (_set(['cameras', 1, 'size'], [64, 64]), 'must have the same size'),
        (_set(['cameras', 0, 'rotate_degrees'], 90), r'\$.cameras\[0\].rotate_degrees'),
        (_set(['cameras', 0, 'fit'], 'squash'), r'\$.cameras\[0\].fit'),
        (_set(['cameras', 0, 'aspect'], 4 / 3), 'all must have the same aspect'),
        (_set(['tokens', 'buckets'], [64, 32, 128]), 'must ascend'),
        (_set(['tokens', 'buckets'], [32, 64]), 'the last must be all 128 visual tokens'),
        (_set(['tokens', 'patch_size'], 15), '15 does not divide the image size'),
        (_set(['graphs', 'act'], 'other.onnx'), "graphs.act: 'other.onnx' is not listed in files"),
        (_set(['prompt', 'template'], 'do it'), 'must hold {instruction} exactly once'),
        (_set(['action', 'gripper_open'], 0.0), 'gripper_open and gripper_closed must differ'),
        (_set(['action', 'q99', 0], float('nan')), r'\$.action.q99.0: every number must be finite'),
        (_set(['action', 'control_period'], float('nan')), r'\$.action.control_period: every'),
        (_set(['action', 'rotation_scale'], float('inf')), r'\$.action.rotation_scale: every'),
        (_set(['action', 'execution'], 'magic'), r'\$.action.execution'),
        (
            _set(['action', 'reference'], 'previous_target'),
            'action.execution: spring is relative to the measured pose, but action.reference is',
        ),
        (_set(['surprise'], 1), 'surprise'),
        (_set(['files', '../escape'], '0' * 64), 'escape'),
    ],
)
def test_inconsistent_manifest(document, change, message):
    change(document)
    with pytest.raises(ContractError, match=message) as caught:
        parse_manifest(document)
    assert '\n' not in str(caught.value)


def test_a_manifest_from_before_the_field_executes_as_a_spring(document):
    assert 'execution' not in document['action']
    assert parse_manifest(document).action.execution == 'spring'


def test_libero_refuses_a_policy_whose_steps_are_displacements(document):
    changed = json.loads(json.dumps(document))
    changed['action'] |= {'execution': 'displacement', 'reference': 'previous_target'}
    parse_manifest(changed)
    changed['action']['reference'] = 'measured_pose'
    with pytest.raises(ContractError, match='LIBERO takes a step as a spring'):
        check_for_libero(parse_manifest(changed))
    check_for_libero(parse_manifest(document))


def _actions_off(golden):
    golden['actions'][2] += 0.01


def _patches_off(golden):
    golden['kept'][2] = ~golden['kept'][2]


def test_golden_observations_come_out_again(policy_dir):
    Policy.load(policy_dir, unchecked=True).replay_golden()


def test_a_folder_without_golden_observations_is_refused(folder):
    amend_manifest(folder, golden=None)
    with pytest.raises(ContractError, match='holds no golden observations; export'):
        Policy.load(folder, unchecked=True).replay_golden()


@pytest.mark.parametrize('change', [_actions_off, _patches_off])
def test_golden_observations_that_come_out_otherwise(folder, document, change):
    with np.load(folder / 'golden.npz') as file:
        golden = dict(file)
    change(golden)
    np.savez(folder / 'golden.npz', **golden)
    write_manifest(folder, document)
    policy = Policy.load(folder, unchecked=True)
    said = 'observation 2 gives a different result on onnxruntime'
    with pytest.raises(ContractError, match=said):
        policy.replay_golden()


def test_golden_actions_are_compared_only_where_the_same_patches_are_kept(folder, document):
    with np.load(folder / 'golden.npz') as file:
        golden = dict(file)
    _actions_off(golden)
    golden['kept'][2][np.flatnonzero(golden['kept'][2])[0]] = False
    np.savez(folder / 'golden.npz', **golden)
    write_manifest(folder, document)
    Policy.load(folder, unchecked=True).replay_golden()


def test_amending_lists_new_files_and_blesses_no_damage(folder):
    (folder / 'note.txt').write_text('new')
    manifest = amend_manifest(folder, new_files=['note.txt'], name='renamed')
    assert manifest.name == 'renamed'
    assert load_manifest(folder).files['note.txt'] == file_sha256(folder / 'note.txt')
    (folder / 'note.txt').unlink()
    amend_manifest(folder, dropped_files=['note.txt'])
    with (folder / 'act.onnx').open('ab') as file:
        file.write(b'x')
    before = (folder / MANIFEST_NAME).read_text()
    with pytest.raises(ContractError, match='act.onnx: SHA-256 is'):
        amend_manifest(folder, name='again')
    assert (folder / MANIFEST_NAME).read_text() == before


def test_a_manifest_is_whole_when_the_disk_is_full(folder, monkeypatch):
    def full(_):
        raise OSError('no space left on device')

    before = (folder / MANIFEST_NAME).read_text()
    with monkeypatch.context() as patch:
        patch.setattr('os.fsync', full)
        with pytest.raises(OSError, match='no space'):
            amend_manifest(folder, name='renamed')
    assert (folder / MANIFEST_NAME).read_text() == before
    load_manifest(folder)


def test_an_engine_s_facts_must_have_its_fingerprint(folder):
    engine = {
        'target': 'tensorrt',
        'fingerprint': '0' * 64,
        'facts': {'gpu': 'Thor'},
        'encode': 'encode.onnx',
        'act': 'act.onnx',
    }
    with pytest.raises(ContractError, match='is not the fingerprint of its facts'):
        amend_manifest(folder, engines=[engine])
