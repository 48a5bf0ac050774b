"""OpenVINO against ONNX Runtime on an untrained policy, and where the pruner's scores compute."""

import dataclasses
import shutil
import sys

import numpy as np
import openvino as ov
import pytest

from lightvla_ros.engine import load_engine
from lightvla_ros.engine.base import PromptIds
from lightvla_ros.engine.openvino import _check_precision
from lightvla_ros.engine.openvino_split import split_at_scores
from lightvla_ros.errors import EngineError
from lightvla_ros.policy.golden import random_inputs
from lightvla_ros.policy.observation import observations
from lightvla_ros.policy.policy import Policy

CAPABILITIES = ov.Core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES')
needs_bf16 = pytest.mark.skipif('BF16' not in CAPABILITIES, reason='the processor has no bf16')


@pytest.fixture(scope='module')
def reference(policy_dir):
    loaded = Policy.load(policy_dir, unchecked=True)
    yield loaded
    loaded.close()


@pytest.fixture(scope='module')
def policy(policy_dir):
    loaded = Policy.load(policy_dir, 'openvino', unchecked=True)
    yield loaded
    loaded.close()


@pytest.fixture(scope='module')
def seen(policy):
    return observations(policy.manifest, random_inputs(policy.manifest, 20, seed=5))


def _encode(policy, observation):
    return policy.engine.encode(*policy.prepare(observation))


def _jaccard(one, two):
    return len(np.intersect1d(one, two)) / len(np.union1d(one, two))


def _numbers(policy, half):
    """Return the number types that a half of ``encode`` computes in, as compiled."""
    graph = policy.engine._encode[half].get_compiled_model().get_runtime_model()
    return {each.get_rt_info()['runtimePrecision'].value for each in graph.get_ordered_ops()}


def test_same_kept_sets_and_actions_as_onnxruntime(policy, reference, seen):
    for observation in seen:
        one, two = _encode(reference, observation), _encode(policy, observation)
        assert two.kept == one.kept
        wanted = reference.engine.kept_patches(one)
        np.testing.assert_array_equal(policy.engine.kept_patches(two), wanted)
        for bucket in policy.manifest.tokens.buckets:
            actions = policy.engine.act(two, bucket)
            difference = np.abs(actions - reference.engine.act(one, bucket))
            assert difference.max() < 1e-5  # 10 x what was found


def test_any_other_bucket_does_too(policy, seen):
    encoded = _encode(policy, seen[0])
    exact = policy.engine.act(encoded, sum(encoded.kept))
    np.testing.assert_allclose(policy.engine.act(encoded, 128), exact, atol=1e-5, rtol=0)


def test_nothing_of_one_observation_is_left_in_the_next(policy, seen):
    outcomes = [policy.infer(seen[index]) for index in (0, 1, 0)]
    first, other, again = ((each.kept_patches, each.normalised) for each in outcomes)
    assert not np.array_equal(first[1], other[1])
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)


def test_content_of_dropped_tokens_does_not_matter(policy, seen):
    encoded = _encode(policy, seen[0])
    before = policy.engine.act(encoded, 128)
    buffers, count = policy.engine._buffers, sum(encoded.kept)
    buffers['tokens'][:, count:] = 100
    buffers['positions'][:, count:] = 7
    np.testing.assert_array_equal(policy.engine.act(encoded, 128), before)


def test_another_prompt_is_seen(policy, reference, seen):
    for instruction in ('open the drawer', 'hold', 'open the drawer'):
        observation = dataclasses.replace(seen[0], instruction=instruction)
        wanted, found = reference.infer(observation), policy.infer(observation)
        np.testing.assert_array_equal(found.kept_patches, wanted.kept_patches)
        np.testing.assert_allclose(found.normalised, wanted.normalised, atol=1e-5, rtol=0)


def test_the_second_half_is_the_scores_and_what_follows(policy_dir):
    features, choice = split_at_scores(ov.Core().read_model(policy_dir / 'encode.onnx'))
    layers = [each for each in choice.get_ordered_ops() if each.get_type_name() == 'MatMul']
    assert len(layers) == 3  # attention to the task, queries, scores
    assert 'TopK' not in {each.get_type_name() for each in features.get_ordered_ops()}
    assert {'Convolution', 'MatMul'} <= {e.get_type_name() for e in features.get_ordered_ops()}


def test_the_whole_graph_where_nothing_is_pruned():
    pixels = ov.op.Parameter(ov.Type.f32, ov.Shape([1, 4]))
    kept = ov.op.Constant(np.array([4], np.int32))
    kept.output(0).set_names({'kept'})
    model = ov.Model([ov.op.Result(pixels.output(0)), ov.op.Result(kept.output(0))], [pixels])
    assert split_at_scores(model) == [model]


@needs_bf16
def test_bf16_keeps_the_scores_in_fp32(policy_dir, reference, seen):
    policy = Policy.load(policy_dir, 'openvino', precision='bf16', unchecked=True)
    assert policy.engine.precision == 'bf16'
    assert 'bf16' in _numbers(policy, 0)
    assert 'bf16' not in _numbers(policy, 1)
    overlaps = []
    for observation in seen:
        wanted, found = reference.infer(observation), policy.infer(observation)
        overlaps.append(_jaccard(found.kept_patches, wanted.kept_patches))
        if overlaps[-1] == 1:
            assert np.abs(found.normalised - wanted.normalised).max() < 0.1
    assert np.mean(overlaps) > 0.9
    policy.close()


def test_bf16_is_refused_where_the_processor_has_none():
    class Core:
        def get_property(self, device, name):
            return {'OPTIMIZATION_CAPABILITIES': ['FP32'], 'FULL_DEVICE_NAME': 'Old'}[name]

    with pytest.raises(EngineError, match=r'this processor \(Old\) does not compute in bf16'):
        _check_precision(Core(), 'bf16')
    with pytest.raises(EngineError, match="'int8' is not one of fp32, bf16"):
        _check_precision(Core(), 'int8')


def test_without_openvino_the_extra_is_named(policy_dir, monkeypatch):
    monkeypatch.setitem(sys.modules, 'openvino', None)
    monkeypatch.delitem(sys.modules, 'lightvla_ros.engine.openvino')
    with pytest.raises(EngineError, match=r"pip install 'lightvla_ros\[openvino\]'"):
        Policy.load(policy_dir, 'openvino', unchecked=True)


def test_only_fp32_graphs_are_taken(policy, policy_dir):
    manifest = policy.manifest
    half = dataclasses.replace(manifest.graphs, precision='fp16')
    with pytest.raises(EngineError, match='in fp16; .* with --precision fp32'):
        load_engine('openvino', policy_dir, dataclasses.replace(manifest, graphs=half))


def test_what_cannot_be_loaded_or_run_is_one_line(policy, policy_dir, tmp_path):
    manifest = policy.manifest
    wrong = dataclasses.replace(manifest, prompt=dataclasses.replace(manifest.prompt, length=64))
    with pytest.raises(EngineError, match='but by the manifest it must be'):
        load_engine('openvino', policy_dir, wrong)
    shutil.copytree(policy_dir, tmp_path, dirs_exist_ok=True)
    (tmp_path / 'act.onnx').write_bytes(b'no graph')
    with pytest.raises(EngineError, match='act.onnx: openvino cannot load it') as caught:
        load_engine('openvino', tmp_path, manifest)
    assert '\n' not in str(caught.value)
    prompt = PromptIds(*np.ones((2, 1, manifest.prompt.length), int))
    with pytest.raises(EngineError, match=r'pixels is \(1, 6, 8, 8\), the graph takes'):
        policy.engine.encode(np.zeros((1, 6, 8, 8), np.float32), prompt, None)
