"""VLA-Cache (2502.02175): patches that did not change keep their keys and values of the last chunk.

Nothing is pruned. A patch is static if the cosine of its pixels in this chunk and in the last one
is at least 0.996; of each camera at most k are, the most similar ones (150 of 256 in its code).
Those that the words attend to most (two thirds of k; 100 of 150) are computed anyway. The others
are reusable. From the second layer on each layer reuses a share of them, in raster order: the
lower the entropy of the layer's attention in the last chunk, the larger. A token whose computing
ended has no state for later layers, so they reuse it, too.

Its port to OpenVLA-OFT compares a picture with itself (``run_libero_eval.py``), so that the first
150 patches are static; here the rule of the paper is followed. In this bidirectional decoder the
keys and values above the first layer depend on the words and on the robot's state, so that reusing
them is an approximation even if the pixels are equal.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from lightvla_ros.vla.compared.memory import Cache, Layer, Memory
from lightvla_ros.vla.compared.pictures import Pictures, cells
from lightvla_ros.vla.compared.sequence import whole_sequence
from lightvla_ros.vla.layers import padding_bias

if TYPE_CHECKING:
    from lightvla_ros.vla.model import Context, LightVLA

SAME = 0.996  # cosine of the pixels of a static patch
RELEVANT = 2 / 3  # of the largest number of static patches, which are computed anyway
GROWTH = 0.55  # of an increase of the share from one layer to the next


def decode(
    model: LightVLA,
    patches: Tensor,
    context: Context,
    pictures: Pictures | None,
    k: int,
    memory: Memory,
) -> tuple[Tensor, Tensor]:
    """Run the decoder; the returned patches are those that the last layer computes."""
    assert pictures is not None
    x, positions, mask = whole_sequence(patches, context)
    count, depth, cache = patches.shape[1], len(model.language_model.model.layers), memory.cache
    everything = torch.arange(x.shape[1], device=x.device)
    rows = [everything] * depth
    if cache is not None:
        left = reusable(cache, pictures.rgb, k, model.config.patch_size)
        for index, number in enumerate(reused(cache.shares, len(left))):
            rows[index] = everything[~torch.isin(everything, left[:number])]
    x, layers = run_layers(model, x, positions, mask, rows, cache)
    words = slice(model.words.start - context.tokens.shape[1], model.words.stop)
    real = context.mask[0, model.words].float()
    middle = layers[max(depth // 2 - 1, 0)].attention
    relevance = real @ middle[words, :count] / real.sum()
    entropies = [
        entropy(each.attention, mask[0, kept]) for each, kept in zip(layers, rows, strict=True)
    ]
    memory.cache = Cache(pictures.rgb, layers, relevance, shares_of(entropies))
    return model.act(x), rows[-1][: len(rows[-1]) - context.tokens.shape[1]]


def reusable(cache: Cache, rgb: Tensor, k: int, patch: int) -> Tensor:
    """Return the static patches that the words do not attend to: int64, ascending."""
    old, new = (cells(each, patch).double() for each in (cache.rgb, rgb))
    cosine = F.cosine_similarity(old, new, dim=-1)  # [cameras, patches]
    best = cosine.sort(descending=True, stable=True)  # in raster order if equal
    static = torch.zeros_like(cosine, dtype=torch.bool)
    static = static.scatter(1, best.indices[:, :k], best.values[:, :k] >= SAME)
    relevance = cache.relevance.view_as(cosine)
    relevant = relevance.topk(round(RELEVANT * k)).indices
    return static.scatter(1, relevant, False).flatten().nonzero()[:, 0]


def reused(shares: list[float], count: int) -> list[int]:
    """Return how many of the reusable patches each layer reuses: none in the first one."""
    numbers = [0]
    for share in shares[1:]:
        numbers.append(max(numbers[-1], int(share * count), min(count, 1)))
    return numbers


def shares_of(entropies: list[float]) -> list[float]:
    """Return each layer's share by its entropy: 1 for the lowest and 0 for the highest."""
    low, high = min(entropies), max(entropies)
    shares = [1 - (each - low) / (high - low + 1e-10) for each in entropies]
    for index in range(1, len(shares)):
        increase = shares[index] - shares[index - 1]
        if increase > 0:
            shares[index] = shares[index - 1] + GROWTH * increase
    return shares


def entropy(attention: Tensor, real: Tensor) -> float:
    """Return the mean entropy of the rows of attention [rows, N] that are real, bool [rows]."""
    rows = -(attention * (attention + 1e-10).log()).sum(1)
    return float(rows[real].mean())


def run_layers(
    model: LightVLA,
    x: Tensor,
    positions: Tensor,
    mask: Tensor,
    rows: list[Tensor],
    cache: Cache | None,
) -> tuple[Tensor, list[Layer]]:
    """Run the decoder's layers, each on its own rows.

    :param x: [1, N, D], with positions and mask [1, N].
    :param rows: The tokens that each layer computes, int64; each a part of the one before. Keys
        and values of the others are those of ``cache``.
    :returns: [1, N, D], in which rows that were not computed are of no use; and every layer.
    """
    llama = model.language_model.model
    key_bias, layers = padding_bias(mask, x.dtype), []
    for index, (block, kept) in enumerate(zip(llama.layers, rows, strict=True)):
        states, attention = x[:, kept], block.self_attn
        rotation = llama.rotation(positions[:, kept], x.dtype)
        normed = block.input_layernorm(states)
        query, keys = attention.queries_and_keys(normed, rotation)
        values = attention.v_proj(normed).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
        if cache is not None:
            old = cache.layers[index]
            keys = old.keys.index_copy(2, kept, keys)
            values = old.values.index_copy(2, kept, values)
        scores = query.float() @ keys.float().transpose(2, 3) / math.sqrt(query.shape[-1])
        weights = (scores + key_bias.float()).softmax(-1)
        found = weights.to(values.dtype) @ values
        states = states + attention.o_proj(found.transpose(1, 2).flatten(2))
        states = states + block.mlp(block.post_attention_layernorm(states))
        x = x.index_copy(1, kept, states)
        layers.append(Layer(keys, values, weights[0].mean(0)))
    return x, layers
