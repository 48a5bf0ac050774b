"""Compared pruning methods against their rules written out plainly, in loops and float64."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from compared_rules import (
    COUNT,
    K,
    as_numbers,
    four_layers,
    given_input,
    highest,
    pictures,
    plain_layer,
    plain_norm,
    plain_states,
    random_model,
    real_words,
    weight_of,
)
from small_policy import small_config

from lightvla_ros.cli import main
from lightvla_ros.errors import ConfigError
from lightvla_ros.evaluate.chunk_flops import chunk_flops
from lightvla_ros.evaluate.episodes import Conditions
from lightvla_ros.vla.compared.flops import count_as_authors, count_compared
from lightvla_ros.vla.compared.pruned_model import BEFORE, BY_SLOTS, METHODS, ComparedModel
from lightvla_ros.vla.config import preset
from lightvla_ros.vla.flops import count_flops
from lightvla_ros.vla.model import LightVLA


@pytest.fixture(scope='module')
def model():
    return random_model()


def _chosen(model, name, seed=0, k=K, chunks=1):
    compared = ComparedModel(model, name, k)
    compared.start_episode(5, 1)
    with torch.no_grad():
        for chunk in range(chunks):
            patches, context = given_input(model, seed + chunk)
            actions, picks = compared.decode(patches, context, pictures())
    return patches, context, actions, picks.tolist()


def test_fastv_reads_the_row_of_stop_or_of_the_slots(model):
    patches, context, _, picks = _chosen(model, 'fastv-stop')
    attention = plain_layer(model, patches, context)[0].mean(0)
    assert picks == highest(attention[-1, :COUNT])
    second = plain_layer(model, patches, context, 1)[0].mean(0)
    slots = second[-1 - model.config.action_slots : -1, :COUNT].mean(0)
    assert _chosen(model, 'fastv-slots')[3] == highest(slots)
    assert highest(slots) != picks


def test_sparsevlm_ranks_by_the_words_that_fit_the_pictures(model):
    patches, context, _, picks = _chosen(model, 'sparsevlm')
    words = real_words(model, context)
    share = np.zeros(len(words))
    for patch in as_numbers(patches[0]):
        power = np.exp(words @ patch - (words @ patch).max())
        share += power / power.sum() / COUNT
    attention = plain_layer(model, patches, context)[0].mean(0)
    first = COUNT + 2 + 2  # BOS, proprio, and two places of padding
    raters = [first + index for index in range(len(words)) if share[index] >= share.mean()]
    assert 0 < len(raters) < len(words)
    assert picks == highest(attention[raters, :COUNT].mean(0))


def test_flashvla_ranks_by_information_contribution(model):
    patches, context, _, picks = _chosen(model, 'flashvla')
    output = plain_layer(model, patches, context)[1][:COUNT]
    left, singular, _ = np.linalg.svd(output, full_matrices=False)
    scores = [sum(abs(left[i, j]) * singular[j] for j in range(len(singular))) for i in range(32)]
    assert picks == highest(scores)


def test_sp_vla_keeps_contours_and_what_siglip_attends_to(model):
    seen = pictures()
    scores = []
    for camera in as_numbers(seen.qkv):
        attention = np.zeros((16, 16))
        for head in range(2):
            query, key = (camera[:, start + 16 * head :][:, :16] for start in (0, 32))
            power = np.exp(query @ key.T / 4)
            attention += power / power.sum(1, keepdims=True) / 2
        scores += attention.mean(0).tolist()
    contour = []
    for pixels in as_numbers(seen.pixels):
        image = np.rint(255 * (pixels[3:] + 1) / 2).astype(np.uint8).transpose(1, 2, 0)
        edges = cv2.Canny(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY), 100, 200)
        for row in range(0, 64, 16):
            for column in range(0, 64, 16):
                contour.append(edges[row : row + 16, column : column + 16].any())
    found = np.flatnonzero(contour).tolist()
    assert 4 < len(found) < 28
    for k in (3, 28):
        ranked = sorted(range(COUNT), key=lambda i: (not contour[i], -scores[i]))
        picks = _chosen(model, 'sp-vla', k=k)[3]
        assert picks == sorted(ranked[:k])
        assert set(picks) <= set(found) if k == 3 else set(picks) >= set(found)


def test_adp_splits_the_patches_between_the_cameras(model):
    patches, context, _, picks = _chosen(model, 'adp')
    block = model.language_model.model.layers[0]
    keys = plain_norm(block.input_layernorm, as_numbers(patches[0]))
    keys = keys @ weight_of(block.self_attn.k_proj).T
    words = plain_norm(block.input_layernorm, real_words(model, context))
    queries = words @ weight_of(block.self_attn.q_proj).T
    scores = [np.mean([query @ key for query in queries]) for key in keys]
    assert picks == [*highest(scores[:16], 2), *(16 + i for i in highest(scores[16:], 4))]


@pytest.mark.parametrize('k', [3, 6, 16])
def test_dart_keeps_pivots_and_what_is_least_like_them(model, k):
    patches, context, _, picks = _chosen(model, 'dart', k=k)
    patches, words = as_numbers(patches[0]), real_words(model, context)
    kept = np.argsort(-np.abs(patches).sum(1))[: min(4, k)].tolist()
    pivots = [patches[i] for i in kept]
    pivots += [words[i] for i in np.argsort(-np.abs(words).sum(1))[:4]]
    counts = [len(part) for part in np.array_split(range(k - len(kept)), len(pivots))]
    for pivot, count in zip(pivots, counts, strict=True):
        left = [i for i in range(COUNT) if i not in kept]
        left.sort(
            key=lambda i: pivot @ patches[i] / np.linalg.norm(pivot) / np.linalg.norm(patches[i])
        )
        kept += left[:count]
    assert picks == sorted(kept)


def test_vla_pruner_joins_past_actions_and_prunes_by_diversity(model):
    for chunks in (1, 3):
        assert _chosen(model, 'vla-pruner', chunks=chunks)[3] == list(range(COUNT))
    guide = np.zeros(COUNT)
    for chunk, weight in zip((1, 2, 3), (1, 0.8, 0.64), strict=True):  # the newest weighs least
        attention = plain_layer(model, *given_input(model, chunk), 1)[0].mean(0)
        guide += weight * attention[-1 - model.config.action_slots : -1, :COUNT].mean(0)
    patches, context, _, picks = _chosen(model, 'vla-pruner', chunks=5)
    semantic = plain_layer(model, patches, context, 1)[0].mean(0)[-1, :COUNT]
    union = sorted({*highest(semantic), *highest(guide)})
    assert len(union) > K
    states = plain_states(model, patches, context, 2)
    unit = states / np.linalg.norm(states, axis=1, keepdims=True)
    kept = [int(semantic.argmax())]
    while len(kept) < K:
        left = [i for i in union if i not in kept]
        kept.append(min(left, key=lambda i: max(unit[i] @ unit[j] for j in kept)))
    assert picks == sorted(kept)


def test_an_episode_forgets_the_last_one(model):
    compared = ComparedModel(model, 'vla-pruner', K)
    with torch.no_grad():
        counts = [len(compared.decode(*given_input(model))[1]) for _ in range(4)]
        compared.start_episode()
        assert [*counts, len(compared.decode(*given_input(model))[1])] == [32, 32, 32, K, 32]


def test_topk_is_the_mean_over_lightvlas_queries(model):
    patches, context, _, picks = _chosen(model, 'topk')
    scores = model.token_scores(patches, context)[0]
    assert picks == highest(as_numbers(scores).mean(0))


def test_random_draws_for_each_chunk_and_fixed_does_not(model):
    def draws(name, *seed):
        compared = ComparedModel(model, name, K)
        compared.start_episode(*seed)
        pixels = torch.rand(1, 2, 6, 64, 64)
        with torch.no_grad():
            return [compared(pixels, given_input(model)[1])[1].tolist() for _ in range(2)]

    first = draws('random', 0, 1)
    assert first == draws('random', 0, 1)
    assert first[0] != first[1]
    assert first[0] != draws('random', 0, 2)[0]
    same = draws('fixed', 0, 1)
    assert same[0] == same[1] == draws('fixed', 0, 2)[0] != draws('fixed', 1, 1)[0]


@pytest.mark.parametrize('name', METHODS)
def test_dropped_patch_cannot_reach_the_action(model, name):
    chunks = 4 if name == 'vla-pruner' else 1
    patches, context, actions, picks = _chosen(model, name, chunks=chunks)
    assert len(picks) == K
    compared = ComparedModel(model, name, K)
    compared._choose = lambda *_: torch.tensor(picks)
    layers = model.language_model.model.layers

    def disturbed(index):
        """Actions if a patch changes at the input of the first layer that lacks the dropped."""

        def disturb(x):
            x = x.clone()
            x[0, index] += 10
            return x

        hook, given = None, patches
        if compared.layer:
            hook = layers[compared.layer - 1].register_forward_hook(lambda *a: disturb(a[2]))
        else:
            given = disturb(patches)
        with torch.no_grad():
            found = compared.decode(given, context, pictures())[0]
        if hook:
            hook.remove()
        return found

    for index in range(COUNT):
        same = torch.equal(disturbed(index), actions)
        assert same == (index not in picks), index


@pytest.mark.parametrize('name', METHODS)
def test_all_patches_give_the_models_own_actions(model, name):
    torch.manual_seed(3)
    pixels, context = torch.randn(1, 2, 6, 64, 64), given_input(model)[1]
    with torch.no_grad():
        actions, picks = ComparedModel(model, name, COUNT)(pixels, context)
        assert picks.tolist() == list(range(COUNT))
        torch.testing.assert_close(actions, model.decode(model.encode(pixels, context)))


def test_the_command_counts_a_method_in_relation_to_all_patches(capsys):
    tiny = ['flops', '--preset', 'libero-tiny', '--text', '20', '--prune']
    assert main([*tiny, 'fastv-slots', '--kept', '16', '64', '--json']) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row['kept'] for row in rows] == [128, 16, 64]
    config = preset('libero-tiny')
    assert rows[0]['tflop'] == count_flops(config, [128], 20)[0]['tflop']
    assert rows[1]['tflop'] == count_compared(config, 'fastv-slots', 16, 20)
    assert main([*tiny, 'nonsense', '--kept', '16']) == 1
    assert 'nonsense' in capsys.readouterr().err
    assert main([*tiny, 'dart']) == 2
    assert '--prune needs --kept K' in capsys.readouterr().err


def test_impossible_methods_are_refused(model):
    for name, k in (('nonsense', 4), ('adp', 0), ('adp', 33), ('vla-cache', 17)):
        with pytest.raises(ConfigError):
            ComparedModel(model, name, k)
    with pytest.raises(ConfigError, match='behind layer 2, which is the last'):
        ComparedModel(LightVLA(small_config()), 'vla-pruner', 4)
    with pytest.raises(ConfigError, match='LightVLA'):
        ComparedModel(LightVLA(small_config('lightvla_star_encoder')), 'adp', 4)


@pytest.mark.parametrize('name', METHODS)
def test_flops_count_the_layers_that_see_all_patches(name):
    config, text = four_layers(), 20
    whole, kept = (count_flops(config, [n], text)[0] for n in (COUNT, K))
    plain = kept['tflop'] - kept['pruner']
    layer = 0 if name in BEFORE else 2 if name in BY_SLOTS else 1
    layers = plain + layer / 4 * (whole['llm'] - kept['llm'])
    counted = count_compared(config, name, K, text)
    if name == 'sp-vla':  # chooses before the projector; what it adds is SigLIP's attention
        layers -= whole['projector'] * (1 - K / COUNT)
        assert counted == pytest.approx(layers, rel=0.02)
    elif name in ('random', 'fixed', 'dart'):  # no matrix product of their own
        assert counted == pytest.approx(layers, rel=1e-9)
    else:
        assert layers < counted < 1.2 * layers or name.startswith('flashvla')
    # by hand: width 64, MLP 96, and 32 or 6 patches with 20 + 1 + 56 other tokens
    mlp = 3 if name == 'sparsevlm' else 2
    one = {n: 4 * n * 64**2 + 2 * n * n * 64 + mlp * n * 64 * 96 for n in (109, 83)}
    by_hand = layer * one[109] + (4 - layer) * one[83]
    assert count_as_authors(config, name, K, text) * 1e12 == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--prune', 'adp:8'], 'add --engine torch'),
        (['--prune', 'adp', '--engine', 'torch'], 'give NAME:K'),
        (['--prune', 'adp:8', '--engine', 'torch', '--ablation', 'more'], 'leave out --pruning'),
    ],
)
def test_options_that_contradict(small_policy, tmp_path, capsys, arguments, message):
    out = str(tmp_path / 'r.json')
    assert main(['eval', '--policy', str(small_policy), '--json', out, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_engine_runs_the_method_and_the_result_counts_it(small_policy):
    from lightvla_ros.contract import load_manifest
    from lightvla_ros.evaluate.compared_engine import ComparedEngine
    from lightvla_ros.policy.observation import observations
    from lightvla_ros.policy.policy import Policy
    from lightvla_ros.sim.episode import EpisodeSpec

    manifest = load_manifest(small_policy)
    with np.load(small_policy / 'golden.npz') as file:
        golden = observations(manifest, dict(file))
    with Policy.load(small_policy, 'torch') as policy:
        policy.engine = engine = ComparedEngine(policy.engine, 'random:8', 0)
        engine.start_episode(EpisodeSpec('libero_object', 0, 0))
        one, other = golden[0], replace(golden[0], instruction='pick up the milk')
        found = [policy.infer(each) for each in (one, one, other)]
        patches = [each.kept_patches.tolist() for each in found]
        assert patches[0] != patches[1]
        assert patches[2] == patches[0], 'another instruction begins anew'
        kept = [sum(each.kept) for each in found]
        assert kept == [8, 8, 8]
        cached = ComparedEngine(engine._engine, 'vla-cache:8', 0)
        policy.engine = cached
        cached.start_episode(EpisodeSpec('libero_object', 0, 0))
        reused = [sum(policy.infer(each).kept) for each in (one, one, other)]
        assert reused[1] < reused[0] == reused[2] == COUNT, 'another instruction drops the cache'
        policy.engine = again = ComparedEngine(engine._engine, 'flashvla-reuse:8', 0)
        again.start_episode(EpisodeSpec('libero_object', 0, 0))
        found = [policy.infer(each) for each in (one, one, one, one, other)]
        given = [sum(each.kept) for each in found]
        assert given == [8, 8, 0, 8, 8], 'a chunk is given again, but not to another instruction'
        assert np.array_equal(found[2].normalised, found[1].normalised)
    for prune, numbers in (
        ('random:8', kept),
        ('vla-cache:8', reused),
        ('flashvla-reuse:8', given[:3]),
    ):
        counted = chunk_flops(manifest, numbers, prune)
        assert 0 < counted['ratio'] < 1
        assert 0 < counted['authors'] < 1
    whole = chunk_flops(manifest, [8, 8], 'flashvla-reuse:8')
    assert counted['tflop'] == pytest.approx(whole['tflop'] * 2 / 3)


def test_journals_of_before_have_no_such_condition():
    assert Conditions().as_dict()['prune'] is None
