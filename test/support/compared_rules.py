"""A small model with random attention, and what its layers compute, in loops and float64."""

from dataclasses import replace

import numpy as np
import torch
from small_policy import small_config

from lightvla_ros.vla.compared.pictures import Pictures
from lightvla_ros.vla.model import LightVLA

K, COUNT, WORDS = 6, 32, 7


def four_layers():
    config = small_config('off')
    return replace(config, language=replace(config.language, layers=4))


def random_model():
    """Weights that are large enough for an attention that differs between tokens."""
    torch.manual_seed(0)
    built = LightVLA(four_layers()).eval()
    for parameter in built.language_model.parameters():
        parameter.data = torch.randn_like(parameter) * 0.2
    return built


def given_input(model, seed=0):
    """All patches, and a context whose first two words are padding."""
    torch.manual_seed(seed)
    width = model.config.language.width
    real = torch.tensor([[False, False, True, True, True, True, True]])
    with torch.no_grad():
        context = model.embed_context(
            torch.randn(1, WORDS, width), real, torch.rand(1, 8), torch.randn(2, width)
        )
    return torch.randn(1, COUNT, width), context


def pictures(corner=(10, 20), seed=0):
    """A bright square before a grey wall, for two cameras, and what SigLIP made of it."""
    torch.manual_seed(seed)
    wall = 0.3 + 0.01 * torch.rand(2, 6, 64, 64)
    wall[:, :, corner[0] : corner[0] + 20, corner[1] : corner[1] + 20] = 0.9
    return Pictures(2 * wall - 1, torch.randn(2, 16, 3 * 32))


def plain_states(model, patches, context, layers):
    """What the decoder's first layers make of all tokens: float64 [N, D]."""
    llama = model.language_model.model
    places = torch.cat([1 + torch.arange(COUNT)[None], context.positions], 1)
    bias = torch.where(torch.cat([torch.ones(1, COUNT) > 0, context.mask], 1), 0.0, -3e4)
    x = torch.cat([patches, context.tokens], 1)
    with torch.no_grad():
        for block in llama.layers[:layers]:
            x = block(x, llama.rotation(places, torch.float32), bias[:, None, None])
    return as_numbers(x[0])


def plain_layer(model, patches, context, index=0):
    """Attention [heads, N, N] of a layer and its output projection's result [N, D]."""
    block, x = (
        model.language_model.model.layers[index],
        plain_states(model, patches, context, index),
    )
    return plain_block(model, block, x, *plain_places(context))[:2]


def plain_places(context):
    """Position ids of all patches and the context, and which of them are real."""
    places = [*range(1, COUNT + 1), *context.positions[0].tolist()]
    return places, [True] * COUNT + context.mask[0].tolist()


def plain_block(model, block, x, places, real, rows=None, old=None):
    """A layer on some rows of x; keys and values of the others are old ones, by head.

    Returns attention [heads, rows, N], the output projection's result [rows, D], the states behind
    the layer [rows, D], and keys and values.
    """
    config = model.config.language
    rows = list(range(len(x))) if rows is None else rows
    normed = plain_norm(block.input_layernorm, x[rows])
    size = config.width // config.heads
    half = size // 2
    angles = np.outer(places, config.rope_theta ** (-np.arange(half) / half))
    turn = np.exp(1j * angles)[rows]
    maps, outputs, kept = [], [], []
    for head in range(config.heads):
        part = slice(head * size, (head + 1) * size)
        query, new_key, new_value = (
            normed @ weight_of(getattr(block.self_attn, f'{name}_proj'))[part].T for name in 'qkv'
        )
        query, new_key = ((p[:, :half] + 1j * p[:, half:]) * turn for p in (query, new_key))
        key, value = (new_key, new_value) if old is None else map(np.copy, old[head])
        key[rows], value[rows] = new_key, new_value
        scores = (query @ key.conj().T).real / np.sqrt(size)
        weights = np.exp(scores - scores.max(1, keepdims=True)) * real
        maps.append(weights / weights.sum(1, keepdims=True))
        outputs.append(maps[-1] @ value)
        kept.append((key, value))
    output = np.concatenate(outputs, 1) @ weight_of(block.self_attn.o_proj).T
    states = x[rows] + output
    normed = plain_norm(block.post_attention_layernorm, states)
    gate, up = (normed @ weight_of(each).T for each in (block.mlp.gate_proj, block.mlp.up_proj))
    states = states + (gate / (1 + np.exp(-gate)) * up) @ weight_of(block.mlp.down_proj).T
    return np.stack(maps), output, states, kept


def weight_of(linear):
    return linear.weight.detach().double().numpy()


def plain_norm(norm, x):
    gain = norm.weight.detach().double().numpy()
    return gain * x / np.sqrt((x**2).mean(-1, keepdims=True) + norm.eps)


def as_numbers(tensor):
    return tensor.double().numpy()


def highest(scores, k=K):
    return sorted(np.argsort(-np.asarray(scores))[:k].tolist())


def real_words(model, context):
    return as_numbers(context.tokens[0, model.words])[context.mask[0, model.words].numpy()]
