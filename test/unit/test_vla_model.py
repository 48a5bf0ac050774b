"""The whole model: presets, sequence, slice, batches, LightVLA*, ablations."""

from dataclasses import replace

import pytest
import torch

from lightvla_ros.errors import ConfigError
from lightvla_ros.vla.ablation import ablated
from lightvla_ros.vla.config import (
    PRUNING,
    TRAINING_FREE,
    LanguageConfig,
    PrunerConfig,
    TowerConfig,
    VLAConfig,
    preset,
)
from lightvla_ros.vla.model import LightVLA

BATCH, PROMPT = 3, 12


def small(**changes):
    tower = TowerConfig(width=16, depth=2, heads=2, mlp_width=32)
    return VLAConfig(
        **{
            'dino': replace(tower, registers=2, class_token=True, layer_scale=True),
            'siglip': tower,
            'language': LanguageConfig(width=32, layers=4, heads=2, mlp_width=64, vocabulary=100),
            'projector_width': 48,
            'head_width': 32,
            'image_size': 28,
            'patch_size': 7,
            'pruning': PrunerConfig(queries=6),
            **changes,
        }
    )


def build(method='lightvla', **changes):
    torch.manual_seed(0)
    share = 0.5 if method in TRAINING_FREE else None
    pruning = PrunerConfig(method=method, queries=6, share=share)
    return LightVLA(small(**{'pruning': pruning, **changes}))


def inputs(seed=1):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(BATCH, PROMPT, dtype=torch.bool)
    mask[1, :5] = False
    return (
        torch.randn(BATCH, 2, 6, 28, 28, generator=generator),
        torch.randint(3, 100, (BATCH, PROMPT), generator=generator),
        mask,
        torch.randn(BATCH, 8, generator=generator),
    )


def alone(batch, index):
    pixels, ids, mask, proprio = (each[index : index + 1] for each in batch)
    return pixels, ids[:, mask[0]], mask[:, mask[0]], proprio


def test_presets_have_the_sizes_they_promise():
    with torch.device('meta'):
        head = sum(p.numel() for p in LightVLA(preset('openvla-oft-7b')).action_head.parameters())
        tiny = sum(p.numel() for p in LightVLA(preset('libero-tiny')).parameters())
    assert head == 151_117_831
    assert 4e6 <= tiny <= 10e6
    assert preset('libero-tiny').patches_per_camera == 64
    assert preset('openvla-oft-7b').patches == 512


@pytest.mark.parametrize(
    ('changes', 'named'),
    [
        ({'image_size': 30}, 'image_size 30'),
        ({'action_slice': 'both'}, 'action_slice'),
        ({'cameras': 0}, 'cameras 0'),
        ({'stop_id': 100}, 'stop_id 100'),
        ({'pruning': PrunerConfig('lightvla_star_llm', layer=4)}, 'pruning.layer 4'),
        ({'pruning': PrunerConfig('ratio')}, "pruning.method 'ratio'"),
        ({'pruning': PrunerConfig(formula='mean')}, 'pruning.formula'),
        ({'pruning': PrunerConfig('adp')}, 'share None of adp'),
        ({'pruning': PrunerConfig('dart', share=1.0)}, 'share 1.0 of dart'),
        ({'pruning': PrunerConfig('adp', share=0.04)}, 'fewer than the 2 cameras'),
        ({'dino': TowerConfig(width=16, depth=1, heads=2, mlp_width=8)}, 'dino.depth'),
        ({'siglip': TowerConfig(width=15, depth=2, heads=2, mlp_width=8)}, 'siglip.width 15'),
        ({'language': LanguageConfig(layers=0)}, 'language.layers 0'),
    ],
)
def test_a_config_that_cannot_be_says_which_field(changes, named):
    with pytest.raises(ConfigError, match=named):
        small(**changes)


def test_a_config_survives_json_and_refuses_strangers():
    config = small(action_slice='release')
    assert VLAConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ConfigError, match='ratio'):
        VLAConfig.from_dict({**config.to_dict(), 'ratio': 0.5})
    with pytest.raises(ConfigError, match='preset'):
        preset('openvla')


@pytest.mark.parametrize('method', PRUNING)
def test_batches_train_and_every_parameter_gets_a_gradient(method):
    model = build(method)
    output = model(*inputs(), alpha=1.0)
    assert output.actions.shape == (BATCH, 8, 7)
    output.actions.square().sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@pytest.mark.parametrize('method', PRUNING)
def test_a_batch_infers_what_each_of_it_does_alone(method):
    model, batch = build(method).eval(), inputs()
    with torch.no_grad():
        together = model(*batch)
        for index in range(BATCH):
            one = model(*alone(batch, index))
            torch.testing.assert_close(together.actions[index], one.actions[0], atol=2e-5, rtol=0)
            if method != 'off':
                assert torch.equal(together.selection.kept[index], one.selection.kept[0])


@pytest.mark.parametrize('method', PRUNING[1:])
def test_training_without_noise_picks_what_inference_keeps(method):
    model, batch = build(method), inputs()
    with torch.no_grad():
        trained = model(*batch).selection
        inferred = model.eval()(*batch).selection
    assert torch.equal(trained.kept, inferred.kept)
    queries = 6 if 'star' in method else model.config.fixed_kept or model.config.patches
    assert trained.picks.shape == (BATCH, queries)
    assert (inferred.counts(2).sum(1) <= queries).all()


def test_position_ids_are_the_published_ones_and_pruning_keeps_them():
    model, batch = build().eval(), inputs()
    pixels, ids, mask, proprio = batch
    embed = model.language_model.model.embed_tokens
    with torch.no_grad():
        context = model.embed_context(embed(ids[:, 1:]), mask[:, :-1], proprio, model.embed_ends())
    lv, slots = model.config.patches, model.config.action_slots
    # BOS at 0, proprio at Lv + 1, the prompt's last token at Lv + P, slot j at Lv + P + 1 + j (1.7)
    assert context.positions[0].tolist() == [0, *range(lv + 1, lv + 1 + PROMPT + slots + 1)]
    real = context.positions[1][context.mask[1]].tolist()
    assert real == [0, *range(lv + 1, lv + 1 + PROMPT - 5 + slots + 1)]
    seen = []
    model.language_model.model.register_forward_pre_hook(lambda _, given: seen.append(given))
    with torch.no_grad():
        picks = model(*alone(batch, 0)).selection.picks
    x, positions, _ = seen[0]
    assert positions[0, : picks.shape[1]].tolist() == (1 + picks[0]).tolist()
    assert positions[0, picks.shape[1] :].tolist() == context.positions[0].tolist()
    assert x.shape[1] == picks.shape[1] + PROMPT + 58  # L = P + kept + 58


def test_the_slice_is_one_or_two_positions_apart():
    model = build().eval()
    states = torch.randn(1, 80, 32)
    seen = []
    model.action_head = torch.nn.Module()
    model.action_head.forward = lambda x: seen.append(x)
    norm = model.language_model.model.norm
    model.act(states)
    model.config = replace(model.config, action_slice='release')
    model.act(states)
    assert torch.equal(seen[0], norm(states[:, -58:-2]))
    assert torch.equal(seen[1], norm(states[:, -56:]))


def test_swapped_cameras_and_another_word_change_the_actions():
    model, batch = build('off').eval(), inputs()
    pixels, ids, mask, proprio = alone(batch, 0)
    other = ids.clone()
    other[0, 3] = (ids[0, 3] + 1) % 100
    with torch.no_grad():
        actions = model(pixels, ids, mask, proprio).actions
        for changed in (
            (pixels.flip(1), ids, mask, proprio),
            (pixels, other, mask, proprio),
            (pixels, ids, mask, proprio + 1),
        ):
            assert (model(*changed).actions - actions).abs().max() > 1e-5


def test_star_in_the_llm_prunes_by_what_the_text_attends_to():
    model, batch = build('lightvla_star_llm').eval(), inputs()
    assert model.queries.zeta.item() == 1.0
    with torch.no_grad():
        model.queries.queries.zero_()  # only the attention is left to choose by
        model.queries.zeta.fill_(100.0)
        kept = model(*batch).selection.kept
        assert kept.sum(1).tolist() == [1] * BATCH
        model.queries.zeta.fill_(-100.0)
        assert not (model(*batch).selection.kept & kept).any()


def test_film_modulates_by_the_words():
    model, batch = build(film=True).eval(), inputs()
    pixels, ids, mask, proprio = batch

    def features(ids):
        words = model.language_model.model.embed_tokens(ids[:, 1:])
        context = model.embed_context(words, mask[:, :-1], proprio, model.embed_ends())
        return model.vision_backbone(pixels, model.film_input(context))

    with torch.no_grad():
        assert (features((ids + 7) % 100) - features(ids)).abs().max() > 1e-5


def test_ablations_act_only_inside_their_block_and_cannot_be_exported():
    model, batch = build().eval(), alone(inputs(), 0)
    with torch.no_grad():
        plain = model(*batch)
        with ablated(model, torch.logical_not):
            others = model(*batch).selection.kept
            with pytest.raises(RuntimeError, match='ablated model cannot be exported'):
                torch.export.export(model, batch, strict=False)
        again = model(*batch)
    assert torch.equal(others, ~plain.selection.kept)
    assert torch.equal(again.actions, plain.actions)
    with pytest.raises(ValueError, match='eval'), ablated(model.train(), torch.logical_not):
        pass
    with pytest.raises(ValueError, match='off'), ablated(build('off').eval(), torch.logical_not):
        pass


@pytest.mark.parametrize(
    ('index', 'value', 'named'),
    [
        (0, torch.zeros(BATCH, 1, 6, 28, 28), 'pixels'),
        (1, torch.zeros(BATCH, 5, dtype=torch.long), 'prompt_ids'),
        (2, torch.ones(BATCH, PROMPT), 'prompt_mask'),
        (3, None, 'proprio'),
        (3, torch.zeros(BATCH, 7), 'proprio'),
    ],
)
def test_wrong_inputs_are_named(index, value, named):
    arguments = list(inputs())
    arguments[index] = value
    with pytest.raises(ValueError, match=named):
        build()(*arguments)
