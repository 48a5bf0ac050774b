"""Compared methods that change how the decoder runs, against their rules in plain loops."""

import numpy as np
import pytest
import torch
from compared_rules import (
    COUNT,
    K,
    as_numbers,
    four_layers,
    given_input,
    pictures,
    plain_block,
    plain_places,
    random_model,
    real_words,
)

from lightvla_ros.vla.compared.action_reuse import is_stable
from lightvla_ros.vla.compared.flops import count_as_authors, count_compared
from lightvla_ros.vla.compared.pruned_model import DECODERS, ComparedModel
from lightvla_ros.vla.compared.recycling import budgets, cluster, visual_tokens
from lightvla_ros.vla.flops import count_flops


@pytest.fixture(scope='module')
def model():
    return random_model()


def _sequence(patches, context):
    return as_numbers(torch.cat([patches, context.tokens], 1)[0]), *plain_places(context)


def _act(model, x):
    with torch.no_grad():
        return model.act(torch.from_numpy(x).float()[None])


# SparseVLM


def _plain_clusters(tokens, count):
    """The groups of tokens, each beginning with its centre."""
    size = len(tokens)
    distance = [[np.linalg.norm(a - b) / np.sqrt(tokens.shape[1]) for b in tokens] for a in tokens]
    density = [np.exp(-np.mean(np.square(sorted(row)[:count]))) for row in distance]
    most = max(max(row) for row in distance)
    score = []
    for i in range(size):
        denser = [distance[i][j] for j in range(size) if density[j] > density[i]]
        score.append(min(denser, default=most) * density[i])
    centres = sorted(range(size), key=lambda i: -score[i])[:count]
    groups = {centre: [centre] for centre in centres}
    for i in set(range(size)) - set(centres):
        groups[min(centres, key=lambda centre: distance[i][centre])].append(i)
    return list(groups.values())


@pytest.mark.parametrize(('size', 'count'), [(6, 1), (25, 3), (40, 5)])
def test_clusters_are_those_of_density_peaks(size, count):
    torch.manual_seed(size)
    tokens = torch.randn(size, 8) + 3 * torch.randint(0, 3, (size, 1))
    means, centres = cluster(tokens, count)
    groups = _plain_clusters(as_numbers(tokens), count)
    assert centres.tolist() == [group[0] for group in groups]
    wanted = np.stack([as_numbers(tokens)[group].mean(0) for group in groups])
    np.testing.assert_allclose(means, wanted, atol=1e-5)


def _plain_recycling(model, patches, context):
    """The actions, the patches that stay to the end, and what each stage recycles."""
    x, places, real = _sequence(patches, context)
    words, start = real_words(model, context), 4  # BOS, proprio, and two places of padding
    share = np.zeros(len(words))
    for patch in as_numbers(patches[0]):
        power = np.exp(words @ patch - (words @ patch).max())
        share += power / power.sum()
    raters = [start + index for index in range(len(words)) if share[index] >= share.mean()]
    visual, recycled = list(range(COUNT)), []
    for index, block in enumerate(model.language_model.model.layers, start=1):
        maps, _, x, _ = plain_block(model, block, x, places, real)
        kept = {1: 14, 2: 6}.get(index)
        if kept is None:
            continue
        count = len(visual)
        scores = maps.mean(0)[[count + rater for rater in raters], :count].mean(0)
        order = np.argsort(-scores).tolist()
        stay, members = sorted(order[:kept]), order[kept:]
        members = members[: int(0.3 * len(members)) + 1]
        recycled.append([visual[i] for i in members])
        groups = _plain_clusters(x[members], int(len(members) / 10) + 1)
        merged = [x[[members[i] for i in group]].mean(0) for group in groups]
        centres = [members[group[0]] for group in groups]
        rest = list(range(count, len(x)))
        x = np.concatenate([x[stay], merged, x[rest]])
        places = [places[i] for i in [*stay, *centres, *rest]]
        real = [real[i] for i in [*stay, *centres, *rest]]
        visual = [visual[i] for i in stay] + [-1] * len(centres)
    return _act(model, x), visual, recycled


def test_sparsevlm_prunes_behind_several_layers_and_recycles(model):
    assert budgets(COUNT, K, 4) == {1: 14, 2: 6}
    assert list(budgets(512, 64, 32)) == [3, 7, 16]
    patches, context = given_input(model)
    lengths, hooks = [], []
    for block in model.language_model.model.layers:
        hooks.append(block.register_forward_hook(lambda *call: lengths.append(call[2].shape[1])))
    with torch.no_grad():
        actions, picks = ComparedModel(model, 'sparsevlm-recycled', K).decode(patches, context)
    for hook in hooks:
        hook.remove()
    wanted, visual, _ = _plain_recycling(model, patches, context)
    assert picks.tolist() == visual
    torch.testing.assert_close(actions, wanted, atol=1e-4, rtol=1e-4)
    rest = context.tokens.shape[1]
    assert [length - rest for length in lengths] == visual_tokens(COUNT, K, 4) == [32, 15, 7, 7]


def test_only_kept_and_recycled_patches_reach_the_action(model):
    patches, context = given_input(model)
    compared = ComparedModel(model, 'sparsevlm-recycled', K)
    recycled = _plain_recycling(model, patches, context)[2][0]
    with torch.no_grad():
        actions, _ = compared.decode(patches, context)
        order = []
        for index in range(COUNT):

            def disturb(_, __, output, index=index):
                output = output.clone()
                output[0, index] += 10
                return output

            hook = model.language_model.model.layers[0].register_forward_hook(disturb)
            order.append(torch.equal(compared.decode(patches, context)[0], actions))
            hook.remove()
    same = {index for index in range(COUNT) if order[index]}
    assert len(same) == 32 - 14 - len(recycled)
    assert not same & set(recycled)


# VLA-Cache

STATIC = 12  # of 16 patches of a camera


def _chunks(model):
    """Two chunks between which the bright square moves."""
    first, second = given_input(model, 0), given_input(model, 1)
    return (*first, pictures((10, 20), 0)), (*second, pictures((10, 40), 1))


def _plain_cache(model):
    """The second chunk's actions, and the patches that each layer reuses."""
    (patches, context, old), (others, context2, new) = _chunks(model)
    x, places, real = _sequence(patches, context)
    layers, entropies, kept = model.language_model.model.layers, [], []
    for index, block in enumerate(layers):
        maps, _, x, keys = plain_block(model, block, x, places, real)
        attention = maps.mean(0)
        kept.append(keys)
        rows = attention[real]
        entropies.append(np.mean([-sum(p * np.log(p + 1e-10) for p in row) for row in rows]))
        if index == 1:  # the middle layer; the words follow BOS, proprio and two of padding
            relevance = attention[COUNT + 4 : COUNT + 9, :COUNT].mean(0)
    low, high = min(entropies), max(entropies)
    shares = [1 - (each - low) / (high - low) for each in entropies]
    for index in range(1, 4):
        if shares[index] > shares[index - 1]:
            shares[index] = shares[index - 1] + 0.55 * (shares[index] - shares[index - 1])
    reusable = []
    for camera in range(2):
        cosine = []
        for row in range(0, 64, 16):
            for column in range(0, 64, 16):
                a, b = (
                    np.rint(255 * (1 + as_numbers(each.pixels)[camera, 3:]) / 2)[
                        :, row : row + 16, column : column + 16
                    ].ravel()
                    for each in (old, new)
                )
                cosine.append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        static = [i for i in np.argsort(-np.array(cosine))[:STATIC] if cosine[i] >= 0.996]
        relevant = np.argsort(-relevance[16 * camera :][:16])[:8]
        reusable += [16 * camera + int(i) for i in sorted(set(static) - set(relevant))]
    x, places, real = _sequence(others, context2)
    reused, number = [], 0
    for index, block in enumerate(layers):
        if index:
            number = max(number, int(shares[index] * len(reusable)), 1)
        reused.append(reusable[:number])
        rows = [i for i in range(len(x)) if i not in reused[-1]]
        x = x.copy()
        x[rows] = plain_block(model, block, x, places, real, rows, kept[index])[2]
    assert 1 < len(reusable) < 24
    return _act(model, x), reused


def test_vla_cache_reuses_what_is_static_and_not_attended_to(model):
    first, second = _chunks(model)
    compared = ComparedModel(model, 'vla-cache', STATIC)
    with torch.no_grad():
        own = compared.decode(*first)
        assert own[1].tolist() == list(range(COUNT)), 'the first chunk computes everything'
        old = compared._memory.cache.layers
        actions, picks = compared.decode(*second)
        new = compared._memory.cache.layers
    wanted, reused = _plain_cache(model)
    assert picks.tolist() == [i for i in range(COUNT) if i not in reused[-1]]
    torch.testing.assert_close(actions, wanted, atol=1e-4, rtol=1e-4)
    for before, after, patches in zip(old, new, reused, strict=True):
        for name in ('keys', 'values'):
            change = (getattr(before, name) != getattr(after, name)).flatten(3).any(3)[0].any(0)
            assert (~change[:COUNT]).nonzero()[:, 0].tolist() == patches, 'the reused ones are old'


def test_vla_cache_forgets_with_the_episode(model):
    first, second = _chunks(model)
    compared = ComparedModel(model, 'vla-cache', STATIC)
    with torch.no_grad():
        fresh = compared.decode(*second)[0]
        compared.start_episode()
        compared.decode(*first)
        assert not torch.equal(compared.decode(*second)[0], fresh)
        compared.start_episode()
        assert torch.equal(compared.decode(*second)[0], fresh)


# FlashVLA's reuse


def _chunk(degrees, patches):
    radians = np.radians(degrees)
    actions = torch.zeros(1, 8, 7)
    actions[0, 0, :2] = torch.tensor([np.cos(radians), np.sin(radians)])
    return actions, torch.tensor(patches)


def test_two_chunks_are_stable_by_angle_and_by_patches():
    five = [1, 2, 3, 4, 5]
    for new, stable in (
        (_chunk(34.9, five), True),
        (_chunk(35.1, five), False),
        (_chunk(26, [1, 2, 3, 4, 9]), True),
        (_chunk(26, [1, 2, 3, 8, 9]), False),
    ):
        assert is_stable([_chunk(30, five), new]) == stable
    assert not is_stable([_chunk(30, five)])


def test_every_other_chunk_is_given_again_while_nothing_changes(model):
    compared, (_, context) = ComparedModel(model, 'flashvla-reuse', K), given_input(model)
    pixels, runs = torch.rand(1, 2, 6, 64, 64), []
    hook = model.projector.register_forward_hook(lambda *_: runs.append(1))
    with torch.no_grad():
        found = [compared(pixels, context) for _ in range(6)]
        assert [len(picks) for _, picks in found] == [K, K, 0, K, 0, K]
        assert len(runs) == 4, 'nothing runs for a chunk that is given again'
        assert all(torch.equal(actions, found[0][0]) for actions, _ in found)
        compared.start_episode()
        assert len(compared(pixels, context)[1]) == K, 'an episode forgets the last one'
    hook.remove()


# Both


@pytest.mark.parametrize('name', DECODERS)
def test_all_patches_give_the_models_own_actions(model, name):
    torch.manual_seed(3)
    pixels, context = torch.randn(1, 2, 6, 64, 64), given_input(model)[1]
    k = 16 if name == 'vla-cache' else COUNT
    with torch.no_grad():
        actions, picks = ComparedModel(model, name, k)(pixels, context)
        assert picks.tolist() == list(range(COUNT))
        torch.testing.assert_close(actions, model.decode(model.encode(pixels, context)))


def test_flops_count_each_layer_with_its_own_tokens():
    config, text = four_layers(), 20
    rows = count_flops(config, [COUNT, 15, 7], text)
    whole = rows[0]['tflop']
    layers = [row['llm'] / 4 for row in rows]
    # by hand: width 64, MLP 96, and 20 + 1 + 56 tokens that are no patch
    recycled = whole - 3 * layers[0] + layers[1] + 2 * layers[2]
    counted = count_compared(config, 'sparsevlm-recycled', K, text)
    assert recycled < counted < 1.2 * recycled
    one = {n: 4 * n * 64**2 + 2 * n * n * 64 + 3 * n * 64 * 96 for n in (109, 92, 84)}
    by_hand = one[109] + one[92] + 2 * one[84]
    found = count_as_authors(config, 'sparsevlm-recycled', K, text)
    assert found * 1e12 == pytest.approx(by_hand)

    computed = 20 + 77
    saved = 3 * (COUNT - 20) * (2 * (4 * 64**2 + 3 * 64 * 96) + 4 * 109 * 64)
    counted = count_compared(config, 'vla-cache', 20, text)
    assert (whole - counted) * 1e12 == pytest.approx(saved, rel=1e-6)
    layer = 4 * computed * 64**2 + 2 * computed * 109 * 64 + 2 * computed * 64 * 96
    first = 4 * 109 * 64**2 + 2 * 109 * 109 * 64 + 2 * 109 * 64 * 96
    found = count_as_authors(config, 'vla-cache', 20, text)
    assert found * 1e12 == pytest.approx(first + 3 * layer)
