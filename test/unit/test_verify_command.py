"""What `lightvla verify` tries, what decides its exit code, and what it writes."""

import json
import shutil
from dataclasses import replace

import pytest

from lightvla_ros.cli import main
from lightvla_ros.contract import MANIFEST_NAME, Trial, load_manifest
from lightvla_ros.errors import ArgumentError, ContractError
from lightvla_ros.evaluate.engine_episodes import spread
from lightvla_ros.verify.variants import Variant, choose, variants
from lightvla_ros.verify.verify import write_trial, write_verifications

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


SOLVED = Trial('episodes', 'libero_object', '2026-11-28', 10, 9, 0.9, 0.596, 0.982)
AGREED = Trial('observations', 'bag', '2026-11-28', 10, 10, 1.0, 0.722, 1.0)


def test_trials_stay_with_their_engine(bundled_policy, tmp_path):
    """An old manifest has none; a new verification keeps them, a new trial replaces its kind."""
    folder = shutil.copytree(bundled_policy, tmp_path / 'policy')
    before = json.loads((folder / MANIFEST_NAME).read_text())
    first, *others = load_manifest(folder).verified
    assert first.trials == ()

    def written():
        found = {each.fingerprint: each for each in load_manifest(folder).verified}
        return found[first.fingerprint]

    write_trial(folder, first.fingerprint, SOLVED)
    write_trial(folder, first.fingerprint, AGREED)
    assert written().trials == (SOLVED, AGREED)
    assert '9 of 10 episodes solved (90.0%, Wilson 59.6% to 98.2%' in str(SOLVED)
    write_verifications(folder, [replace(first, date='2030-01-01')])
    assert (written().date, written().trials) == ('2030-01-01', (SOLVED, AGREED))
    write_trial(folder, first.fingerprint, replace(SOLVED, count=20))
    assert written().trials == (AGREED, replace(SOLVED, count=20))
    # the others are written as older releases read them
    after = json.loads((folder / MANIFEST_NAME).read_text())
    for each in others:
        assert each.as_dict() in before['verified']
        assert each.as_dict() in after['verified']
    with pytest.raises(ContractError, match='was removed meanwhile'):
        write_trial(folder, 'other', SOLVED)


def test_trials_are_refused_before_anything_runs(copy, monkeypatch, capsys):
    assert main(['verify', str(copy), '--episodes', '2000']) == 2
    assert 'libero_object and libero_spatial have 1000' in capsys.readouterr().err
    assert main(['verify', str(copy), '--episodes', '1', '--result', 'result']) == 2
    assert 'must end in .json' in capsys.readouterr().err
    monkeypatch.setattr('lightvla_ros.cli.verify.os.access', lambda *_: False)  # root may write
    assert main(['verify', str(copy), '--episodes', '1']) == 2
    assert 'name a writable copy' in capsys.readouterr().err


def test_episodes_are_spread_and_can_be_extended():
    suites = ('libero_object', 'libero_spatial')
    few, many = spread(suites, 7), spread(suites, 45)
    assert many[:7] == few
    assert {(spec.suite, spec.task) for spec in many[:20]} == {
        (suite, task) for suite in suites for task in range(10)
    }
    assert {spec.init_state for spec in many[:20]} == {0}
    assert len(set(spread(suites, 1000))) == 1000
    with pytest.raises(ArgumentError, match='1000'):
        spread(suites, 1001)
