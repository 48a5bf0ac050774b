"""ONNX Runtime's execution providers: their options, and those that are not here."""

import shutil
import subprocess

import pytest

from lightvla_ros.cli import main
from lightvla_ros.engine import onnxruntime as engine
from lightvla_ros.engine.onnxruntime import provider_options
from lightvla_ros.errors import EngineError
from lightvla_ros.policy.policy import Policy


def test_onnxruntime_does_not_compute_fp32_in_tf32_on_cuda():
    assert provider_options('CUDAExecutionProvider', 'fp32') == {'use_tf32': '0'}
    assert provider_options('CUDAExecutionProvider', 'fp16') == {}


@pytest.fixture
def without_its_library(tmp_path, monkeypatch):
    """A provider of ONNX Runtime whose shared object needs a library that is gone."""
    source = tmp_path / 'x.cpp'
    source.write_text('extern "C" int gone(); extern "C" int there() { return gone(); }')
    (tmp_path / 'gone.cpp').write_text('extern "C" int gone() { return 1; }')
    gone, there = tmp_path / 'libgone.so.7', tmp_path / 'libthere.so'
    build = ['g++', '-shared', '-fPIC']
    subprocess.run(
        [*build, '-Wl,-soname,libgone.so.7', tmp_path / 'gone.cpp', '-o', gone], check=True
    )
    subprocess.run([*build, source, gone, '-o', there], check=True)
    gone.unlink()
    monkeypatch.setattr(engine.ort, 'get_available_providers', lambda: ['ThereExecutionProvider'])
    # an absolute path takes the place of the folder that it is looked for in
    monkeypatch.setitem(engine.LIBRARIES, 'ThereExecutionProvider', str(there))
    return 'ThereExecutionProvider'


def test_a_provider_whose_library_is_missing_is_one_quiet_line(
    without_its_library, bundled_policy, capfd
):
    """ONNX Runtime printed a page on stderr and went on with the CPU."""
    with pytest.raises(EngineError, match='needs libgone.so.7, which is not found'):
        Policy.load(bundled_policy, provider=without_its_library)
    assert capfd.readouterr() == ('', '')


@pytest.mark.parametrize(
    'command',
    [
        ['verify', '{policy}'],
        ['bench', 'engine', '--policy', '{policy}'],
        ['eval', '--policy', '{policy}', '--json', '{out}', '--suite', 'libero_object'],
    ],
)
def test_a_provider_that_is_not_here_is_named(bundled_policy, tmp_path, capsys, command):
    words = [word.format(policy=bundled_policy, out=tmp_path / 'r.json') for word in command]
    assert main([*words, '--provider', 'RocketExecutionProvider']) == 1
    assert 'has no RocketExecutionProvider here, only ' in capsys.readouterr().err


def test_only_the_provider_that_was_named_is_verified(bundled_policy, tmp_path, capsys):
    copy = shutil.copytree(bundled_policy, tmp_path / 'policy')
    assert main(['verify', str(copy), '--provider', 'CPUExecutionProvider', '--count', '0']) == 0
    assert 'openvino' not in capsys.readouterr().out


def test_the_fingerprint_on_a_cpu_is_that_of_before(bundled_policy):
    assert provider_options('CPUExecutionProvider', 'fp32') == {}
    Policy.load(bundled_policy).close()
