"""What `lightvla verify` tries, what decides its exit code, and what it writes."""

import json
import shutil
from dataclasses import replace

import pytest

from lightvla_ros.cli import main
from lightvla_ros.contract import MANIFEST_NAME, load_manifest
from lightvla_ros.verify.variants import Variant, choose, variants

ORT = Variant('onnxruntime', 'fp32', {'provider': 'CPUExecutionProvider'}, 'onnxruntime-cpu')
CUDA = Variant('onnxruntime', 'fp32', {'provider': 'CUDAExecutionProvider'}, 'onnxruntime-cuda')
OPENVINO = Variant('openvino', 'fp32', {'precision': 'fp32'}, 'openvino-cpu')
BF16 = Variant('openvino', 'bf16', {'precision': 'bf16'}, 'openvino-cpu')
TENSORRT = Variant('tensorrt', 'fp32', {}, 'tensorrt')
ALL = (ORT, CUDA, OPENVINO, BF16, TENSORRT)


@pytest.fixture(scope='module')
def manifest(bundled_policy):
    return load_manifest(bundled_policy)


@pytest.fixture
def fresh(manifest):
    """A folder as the export leaves it."""
    return replace(manifest, verified=())


def test_a_variant_that_nobody_asked_for_does_not_decide_the_exit_code(fresh):
    choice = choose(fresh, ALL)
    assert choice.deciding == (ORT, TENSORRT)
    assert choice.trying == (CUDA, OPENVINO)
    assert choice.left == (BF16,)


@pytest.mark.parametrize('processor', [(ORT, OPENVINO), (ORT, OPENVINO, BF16)])
def test_the_bundled_policy_asks_for_the_same_on_every_processor(manifest, processor):
    choice = choose(manifest, processor)
    assert choice.deciding == (ORT, OPENVINO)  # both passed before
    assert choice.trying == ()


def test_what_passed_before_must_pass_again(manifest):
    (ours,) = [each for each in manifest.verified if each.backend == 'openvino-cpu']
    known = replace(manifest, verified=(replace(ours, precision='bf16'),))
    assert BF16 in choose(known, ALL).deciding
    failed = replace(manifest, verified=(replace(ours, precision='bf16', passed=False),))
    assert BF16 in choose(failed, ALL).left


@pytest.mark.parametrize(
    ('engine', 'precision', 'deciding'),
    [
        ('openvino', None, (OPENVINO,)),
        ('openvino', 'bf16', (BF16,)),
        ('onnxruntime', None, (ORT, CUDA)),
        (None, 'bf16', (BF16,)),
        ('tensorrt', 'bf16', ()),
    ],
)
def test_what_the_user_names_decides(fresh, engine, precision, deciding):
    choice = choose(fresh, ALL, engine, precision)
    assert choice.deciding == deciding
    assert choice.trying == ()


def test_a_machine_without_the_default_engine_decides_by_what_it_has(fresh):
    assert choose(fresh, (OPENVINO,)).deciding == (OPENVINO,)


def test_variants_name_engines_as_these_name_themselves(manifest):
    assert ORT in variants(manifest)


# --- on the bundled policy


@pytest.fixture
def copy(bundled_policy, tmp_path):
    return shutil.copytree(bundled_policy, tmp_path / 'policy')


def test_finding_what_the_manifest_says_leaves_the_file_byte_for_byte(copy, capsys):
    before, changed = (copy / MANIFEST_NAME).read_bytes(), (copy / MANIFEST_NAME).stat().st_mtime_ns
    assert main(['verify', str(copy), '--count', '0']) == 0
    assert (copy / MANIFEST_NAME).read_bytes() == before
    assert (copy / MANIFEST_NAME).stat().st_mtime_ns == changed
    said = capsys.readouterr().out
    assert 'manifest.json: unchanged, because there are no new results' in said
    assert 'unavailable: openvino-cpu bf16: not tried, because the folder is in fp32' in said


@pytest.fixture
def unverified(copy):
    document = json.loads((copy / MANIFEST_NAME).read_text())
    (copy / MANIFEST_NAME).write_text(json.dumps(document | {'verified': []}))
    return copy


ARGUMENTS = ['--engine', 'onnxruntime', '--count', '0']


def test_what_is_written_is_said(unverified, capsys):
    assert main(['verify', str(unverified), *ARGUMENTS]) == 0
    assert 'manifest.json: written: onnxruntime-cpu fp32 passed' in capsys.readouterr().out
    (entry,) = load_manifest(unverified).verified
    assert entry.passed
    assert main(['verify', str(unverified), *ARGUMENTS, '--json']) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document['passed'], document['written']) == (True, False)


def test_a_read_only_folder_is_one_line_that_says_what_would_be_written(
    unverified, capsys, monkeypatch
):
    def refuse(*_, **__):  # a test that runs as root can write everywhere
        raise PermissionError(13, 'Permission denied', 'manifest.json.part')

    monkeypatch.setattr('lightvla_ros.verify.verify.amend_manifest', refuse)
    assert main(['verify', str(unverified), *ARGUMENTS]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert 'cannot be written (Permission denied)' in last
    assert 'onnxruntime-cpu fp32 passed' in last


def test_a_manifest_that_cannot_be_written_for_another_reason_is_a_failure(
    unverified, capsys, monkeypatch
):
    def refuse(*_, **__):
        raise OSError(5, 'Input/output error', 'manifest.json')

    monkeypatch.setattr('lightvla_ros.verify.verify.amend_manifest', refuse)
    assert main(['verify', str(unverified), *ARGUMENTS]) == 1
    line = 'lightvla verify: manifest.json: Input/output error\n'
    assert capsys.readouterr().err == line


def test_arguments_that_cannot_be_are_exit_code_2(copy):
    assert main(['verify', str(copy), '--count', '-1']) == 2
