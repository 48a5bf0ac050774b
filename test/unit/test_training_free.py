"""Rules that need no training: exported and verified as LightVLA's pruning, refused elsewhere."""

import json

import numpy as np
import pytest
import torch
from published_folder import write_published
from small_policy import small_config, write_weights

from lightvla_ros.cli import main
from lightvla_ros.contract import load_manifest
from lightvla_ros.engine.torch import TorchEngine
from lightvla_ros.evaluate.chunk_flops import chunk_flops
from lightvla_ros.export.buckets import choose_buckets
from lightvla_ros.policy.golden import random_inputs
from lightvla_ros.policy.observation import observations
from lightvla_ros.policy.policy import Policy
from lightvla_ros.vla.compared.pruned_model import ComparedModel
from lightvla_ros.vla.config import TRAINING_FREE, VLAConfig
from lightvla_ros.vla.flops import count_flops
from lightvla_ros.vla.training_free import RULES

KEPT = 10  # 0.3 of 32 patches


@pytest.fixture(scope='module')
def unpruned(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp('unpruned') / 'weights', 'off')


@pytest.fixture(scope='module', params=TRAINING_FREE)
def rule(request):
    return request.param


@pytest.fixture(scope='module')
def exported(rule, unpruned, tmp_path_factory):
    out = tmp_path_factory.mktemp(rule) / 'out'
    words = ['--policy', str(unpruned), '--pruning', f'{rule}:0.3', '--out', str(out)]
    assert main(['export', *words]) == 0
    return out


def test_every_engine_keeps_what_the_rule_says(rule, unpruned, exported, capsys):
    assert main(['verify', str(exported), '--json']) == 0
    found = json.loads(capsys.readouterr().out)['engines']
    assert {'onnxruntime-cpu', 'openvino-cpu'} <= {each['backend'] for each in found}
    assert all(each['passed'] and each['reference'] == 'torch' for each in found)

    manifest = load_manifest(unpruned)
    reference = TorchEngine(unpruned, manifest)  # with every token, as the weights were trained
    compared = ComparedModel(reference.model, rule, KEPT)
    with Policy.load(exported) as policy:
        sets = []
        for observation in observations(manifest, random_inputs(manifest, 4, 3)):
            prediction = policy.infer(observation)
            with torch.inference_mode():
                actions, picks = compared(*reference.inputs(*policy.prepare(observation)))
            np.testing.assert_array_equal(prediction.kept_patches, picks)
            np.testing.assert_allclose(prediction.normalised, actions[0], atol=1e-5)
            assert prediction.bucket == KEPT
            sets.append(tuple(picks.tolist()))
            if rule == 'adp':
                assert prediction.kept == (4, 6)
    assert len(set(sets)) > 1


def test_the_folder_names_the_rule_and_off_brings_every_token_back(rule, exported, tmp_path):
    manifest = load_manifest(exported)
    assert manifest.tokens.buckets == (KEPT, 32)
    assert manifest.provenance['export']['pruning'] == f'{rule}:0.3'
    config = VLAConfig.from_dict(manifest.model.config)
    assert (config.pruning.method, config.fixed_kept) == (rule, KEPT)
    words = ['--policy', str(exported), '--target', 'torch-cuda', '--pruning', 'off']
    assert main(['export', *words, '--out', str(tmp_path / 'off')]) == 0
    again = load_manifest(tmp_path / 'off')
    assert again.provenance['export']['pruning'] == 'off'
    assert again.model.config['pruning']['method'] == 'off'
    assert again.verified == ()
    assert main(['export', '--policy', str(exported), '--pruning', 'off']) == 1


def test_flops_are_counted_with_the_rule(rule, exported, capsys):
    assert main(['flops', '--policy', str(exported), '--json', '--text', '20']) == 0
    whole, pruned = json.loads(capsys.readouterr().out)
    assert (whole['kept'], pruned['kept']) == (32, KEPT)
    assert whole['pruner'] == 0
    # by hand: keys of 32 patches, queries of 18 words, one score a patch; DART multiplies nothing
    by_hand = 2 * (32 + 18) * 64 * 64 + 2 * 32 * 64 if rule == 'adp' else 0
    assert pruned['pruner'] * 1e12 == pytest.approx(by_hand)
    manifest = load_manifest(exported)
    rows = count_flops(small_config(rule), [KEPT, 32], manifest.prompt.length + 1)
    ratio = rows[0]['tflop'] / rows[1]['tflop']
    assert chunk_flops(manifest, [KEPT] * 3)['ratio'] == pytest.approx(ratio, abs=1e-4)


def test_one_bucket_holds_what_is_kept_unless_others_are_asked_for():
    config = small_config('adp')
    context = config.context_length(20)
    assert choose_buckets('auto', None, config, context) == (KEPT, 32)
    assert choose_buckets('16', None, config, context) == (16, 32)


def test_a_downloaded_checkpoint_runs_with_a_rule(tmp_path):
    write_published(tmp_path / 'published')
    out = tmp_path / 'out'
    words = ['--checkpoint', str(tmp_path / 'published'), '--out', str(out)]
    assert main(['import', *words, '--pruning', 'adp:.5']) == 0
    config = VLAConfig.from_dict(load_manifest(out).model.config)
    assert (config.pruning.name, config.fixed_kept, config.patches) == ('adp:0.5', 4, 8)
    out = tmp_path / 'exported'
    words = ['--checkpoint', str(tmp_path / 'published'), '--out', str(out)]
    assert main(['export', *words, '--target', 'torch-cuda', '--pruning', 'dart:0.5']) == 0
    manifest = load_manifest(out)
    assert manifest.provenance['export']['pruning'] == 'dart:0.5'
    with Policy.load(out, 'torch') as policy:
        policy.replay_golden()
        (observation,) = observations(manifest, random_inputs(manifest, 1, 3))
        assert len(policy.infer(observation).kept_patches) == 4


def test_untrained_weights_take_a_rule_too(tmp_path):
    out = tmp_path / 'out'
    words = ['--out', str(out), '--layers', '1', '--pruning', 'adp:0.25']
    assert main(['make-untrained', *words]) == 0
    assert VLAConfig.from_dict(load_manifest(out).model.config).fixed_kept == 32


@pytest.mark.parametrize(
    ('pruning', 'message'),
    [
        ('adp', 'give the share of patches that adp keeps'),
        ('adp:1', 'above 0 and below 1'),
        ('dart:0', 'such as dart:0.3'),
        ('dart:-0.5', 'above 0 and below 1'),
        ('adp:30%', 'such as adp:0.3'),
        ('adp:nan', 'above 0 and below 1'),
        ('fastv:0.3', "'fastv:0.3' is none of lightvla, off, adp:SHARE, dart:SHARE"),
        ('lightvla:0.3', 'is none of'),
    ],
)
def test_a_method_that_cannot_be_is_refused(pruning, message, unpruned, tmp_path, capsys):
    for words in (
        ['export', '--policy', str(unpruned)],
        ['import', '--checkpoint', str(unpruned)],
        ['make-untrained'],
    ):
        with pytest.raises(SystemExit) as caught:
            main([*words, '--out', str(tmp_path / 'out'), '--pruning', pruning])
        assert caught.value.code == 2
        assert message in capsys.readouterr().err


def test_a_share_that_leaves_a_camera_without_a_patch(unpruned, tmp_path, capsys):
    out = str(tmp_path / 'out')
    assert main(['export', '--policy', str(unpruned), '--out', out, '--pruning', 'adp:0.04']) == 1
    assert 'keeps 1 of 32 visual tokens, fewer than the 2 cameras' in capsys.readouterr().err


def test_what_must_be_trained_is_neither_replaced_nor_added(
    unpruned, small_weights, tmp_path, capsys
):
    out = ['--out', str(tmp_path / 'out')]
    assert main(['export', '--policy', str(small_weights), *out, '--pruning', 'adp:0.3']) == 1
    assert 'was trained to prune by lightvla; compare' in capsys.readouterr().err
    assert main(['export', '--policy', str(unpruned), *out, '--pruning', 'lightvla']) == 1
    assert 'was trained with every token, and lightvla must be trained' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_rules_are_those_of_the_configuration():
    assert tuple(RULES) == TRAINING_FREE
