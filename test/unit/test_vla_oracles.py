"""The model's parts against transformers' with the same weights, fp32, at small sizes."""

from dataclasses import replace

import pytest
import torch
from transformers import (
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    LlamaConfig,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers import LlamaModel as TheirLlama

from lightvla_ros.vla.config import LanguageConfig, TowerConfig
from lightvla_ros.vla.language import LlamaModel
from lightvla_ros.vla.vision import Tower

TOLERANCE = 1e-5
IMAGE, PATCH, DEPTH = 56, 14, 4


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def _randomise(module):
    """Random values everywhere: a dropped gain, bias or norm must show."""
    for parameter in module.parameters():
        parameter.data = torch.randn_like(parameter) * 0.3
    return module


def _their_llama(config, masked):
    theirs = TheirLlama(
        LlamaConfig(
            hidden_size=config.width,
            intermediate_size=config.mlp_width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            vocab_size=config.vocabulary,
            rms_norm_eps=config.norm_eps,
            attn_implementation='sdpa',
        )
    )
    bias = torch.where(masked, 0.0, -3e4)[:, None, None, :]
    return theirs.eval(), bias.expand(-1, 1, masked.shape[1], -1)


def test_llama_equals_transformers_with_a_non_causal_mask():
    config = LanguageConfig(width=64, layers=3, heads=4, mlp_width=160, vocabulary=50)
    masked = torch.ones(2, 20, dtype=torch.bool)
    masked[1, 5:9] = False
    theirs, bias = _their_llama(config, masked)
    ours = _randomise(LlamaModel(config))
    theirs.load_state_dict(ours.state_dict())  # strict: the names are the checkpoint's
    positions = torch.randint(0, 600, (2, 20))  # gaps and repeats, as pruning leaves them
    ids = torch.randint(0, 50, (2, 20))
    with torch.no_grad():
        x = ours.norm(ours(ours.embed_tokens(ids), positions, masked))
        wanted = theirs(
            input_ids=ids, attention_mask=bias, position_ids=positions, use_cache=False
        ).last_hidden_state
        causal = theirs(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state
    assert (x - wanted).abs().max() < TOLERANCE
    assert (x - causal).abs().max() > 0.1


def test_a_late_token_changes_an_early_state():
    config = LanguageConfig(width=32, layers=1, heads=2, mlp_width=64, vocabulary=50)
    llama = LlamaModel(config)
    x, positions = torch.randn(1, 30, 32), torch.arange(30)[None]
    late = x.clone()
    late[0, -1] += 1.0
    assert (llama(x, positions) - llama(late, positions))[0, 0].abs().max() > 1e-4


def test_masked_tokens_change_nothing():
    config = LanguageConfig(width=32, layers=2, heads=2, mlp_width=64, vocabulary=50)
    llama = LlamaModel(config)
    x, positions = torch.randn(1, 12, 32), torch.arange(12)[None]
    mask = torch.ones(1, 12, dtype=torch.bool)
    mask[0, 4:7] = False
    other = x.clone()
    other[0, 4:7] = 100 * torch.randn(3, 32)
    rest = mask[0]
    with torch.no_grad():
        assert torch.equal(
            llama(x, positions, mask)[0, rest], llama(other, positions, mask)[0, rest]
        )


def test_rope_angles_stay_exact_under_bf16_autocast():
    config = LanguageConfig(width=32, layers=1, heads=2, mlp_width=64, vocabulary=50)
    llama, positions = LlamaModel(config), torch.tensor([[0, 513, 2047]])
    exact = llama.rotation(positions, torch.float32)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert all(map(torch.equal, llama.rotation(positions, torch.float32), exact))


def _put(theirs, names, ours):
    """Copy tensors of ours to theirs by a table of names; every tensor of theirs must be in it."""
    state = theirs.state_dict()
    assert state.keys() == names.keys()
    theirs.load_state_dict({key: ours[name].view_as(state[key]) for key, name in names.items()})


def _split_qkv(state):
    for key in [key for key in state if '.qkv.' in key]:
        for part, tensor in zip('qkv', state[key].chunk(3), strict=True):
            state[key.replace('qkv', part)] = tensor
    return state


def test_dino_tower_equals_transformers():
    config = TowerConfig(
        width=48, depth=DEPTH, heads=4, mlp_width=96, registers=4, class_token=True,
        layer_scale=True,
    )  # fmt: skip
    ours = _randomise(Tower(config, IMAGE, PATCH)).eval()
    theirs = Dinov2WithRegistersModel(
        Dinov2WithRegistersConfig(
            hidden_size=48,
            num_hidden_layers=DEPTH - 1,
            num_attention_heads=4,
            mlp_ratio=2,
            image_size=IMAGE,
            patch_size=PATCH,
            num_register_tokens=4,
        )
    ).eval()
    state = _split_qkv(dict(ours.state_dict()))
    # transformers gives the class token a position; timm's reg4 models add none
    state['position'] = torch.cat([torch.zeros(1, 1, 48), state['pos_embed']], dim=1)
    state['mask_token'], state['norm'] = torch.zeros(48), torch.ones(48)
    names = {
        'embeddings.cls_token': 'cls_token',
        'embeddings.mask_token': 'mask_token',
        'embeddings.register_tokens': 'reg_token',
        'embeddings.position_embeddings': 'position',
        'layernorm.weight': 'norm',
        'layernorm.bias': 'norm',
    }
    for leaf in ('weight', 'bias'):
        names[f'embeddings.patch_embeddings.projection.{leaf}'] = f'patch_embed.proj.{leaf}'
    parts = {
        'norm1': 'norm1',
        'norm2': 'norm2',
        'attention.q_proj': 'attn.q',
        'attention.k_proj': 'attn.k',
        'attention.v_proj': 'attn.v',
        'attention.o_proj': 'attn.proj',
        'mlp.fc1': 'mlp.fc1',
        'mlp.fc2': 'mlp.fc2',
    }
    stem = _layer_stem(theirs, 'norm1.weight')
    for index in range(DEPTH - 1):
        for their_part, our_part in parts.items():
            for leaf in ('weight', 'bias'):
                names[f'{stem}{index}.{their_part}.{leaf}'] = f'blocks.{index}.{our_part}.{leaf}'
        for scale in (1, 2):
            names[f'{stem}{index}.layer_scale{scale}.lambda1'] = (
                f'blocks.{index}.ls{scale}.scale_factor'
            )
    _put(theirs, names, state)
    _same_patches(ours, theirs, prefix=5)


def test_siglip_tower_equals_transformers():
    config = TowerConfig(width=48, depth=DEPTH, heads=4, mlp_width=96, gelu='tanh')
    ours = _randomise(Tower(config, IMAGE, PATCH)).eval()
    theirs = SiglipVisionModel(
        SiglipVisionConfig(
            hidden_size=48,
            intermediate_size=96,
            num_hidden_layers=DEPTH - 1,
            num_attention_heads=4,
            image_size=IMAGE,
            patch_size=PATCH,
            vision_use_head=False,
        )
    ).eval()
    state = _split_qkv(dict(ours.state_dict()))
    state['norm'] = torch.ones(48)
    table = {
        'layer_norm1': 'norm1',
        'layer_norm2': 'norm2',
        'self_attn.q_proj': 'attn.q',
        'self_attn.k_proj': 'attn.k',
        'self_attn.v_proj': 'attn.v',
        'self_attn.out_proj': 'attn.proj',
        'mlp.fc1': 'mlp.fc1',
        'mlp.fc2': 'mlp.fc2',
    }
    names = {}
    for key in theirs.state_dict():
        plain = key.removeprefix('vision_model.')
        if 'position_embedding' in key:
            names[key] = 'pos_embed'
        elif 'patch_embedding' in key:
            names[key] = f'patch_embed.proj.{key.rsplit(".", 1)[1]}'
        elif 'post_layernorm' in key:
            names[key] = 'norm'
        else:
            _, _, index, rest = plain.split('.', 3)
            part, leaf = rest.rsplit('.', 1)
            names[key] = f'blocks.{index}.{table[part]}.{leaf}'
    _put(theirs, names, state)
    _same_patches(ours, theirs, prefix=0)
    exact = Tower(replace(config, gelu='exact'), IMAGE, PATCH)
    exact.load_state_dict(ours.state_dict())
    pixels = torch.randn(1, 3, IMAGE, IMAGE)
    assert (exact(pixels) - ours(pixels)).abs().max() > TOLERANCE  # the choice is a real one


def _layer_stem(module, end):
    key = next(key for key in module.state_dict() if key.endswith(f'.0.{end}'))
    return key.removesuffix(f'0.{end}')


def _same_patches(ours, theirs, prefix):
    pixels = torch.randn(2, 3, IMAGE, IMAGE)
    with torch.no_grad():
        wanted = theirs(pixel_values=pixels, output_hidden_states=True).hidden_states[-1]
        assert (ours(pixels) - wanted[:, prefix:]).abs().max() < TOLERANCE
