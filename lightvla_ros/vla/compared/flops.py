"""FLOPs of a chunk with a compared method, counted as for LightVLA and as its authors count."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from lightvla_ros.vla.compared.memory import Cache
from lightvla_ros.vla.compared.pruned_model import ComparedModel, pruning_layer
from lightvla_ros.vla.compared.recycling import visual_tokens
from lightvla_ros.vla.compared.vla_cache import run_layers
from lightvla_ros.vla.config import VLAConfig
from lightvla_ros.vla.flops import TERA, count_flops
from lightvla_ros.vla.model import LightVLA


def count_compared(config: VLAConfig, name: str, k: int, text: int) -> float:
    """Count a pruned chunk with everything that the method itself computes [TFLOP].

    The map of attention that a method reads is computed twice, by the layer and for the method, as
    the fused attention does not return it. An SVD of n x D counts 4 n D^2 + 8 D^3, which torch's
    counter leaves out. SP-VLA chooses before the projector, which is counted for the kept patches.
    Canny, the cosine of pixels and the distances of clusters are not counted.

    :param k: Kept patches; with ``vla-cache`` those that all layers but the first compute. Of those
        only the last layer's number is recorded, so the count is a lower bound.
    :param text: Number of text tokens: BOS, the prompt's words and stop.
    """
    if name == 'vla-cache':
        whole = count_flops(config, [config.patches], text)[0]
        return whole['tflop'] - whole['llm'] + _count_cached_layers(config, k, text)
    with torch.device('meta'):
        model = LightVLA(config).eval()
        compared = ComparedModel(model, name, k)
        width, proprio = config.language.width, config.proprio_size
        pixels = torch.empty(1, config.cameras, 6, config.image_size, config.image_size)
        words = torch.empty(1, text - 2, width)
        ends, mask = torch.empty(2, width), torch.ones(1, text - 2, dtype=torch.bool)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            state = torch.empty(1, proprio) if proprio else None
            for _ in range(4 if name == 'vla-pruner' else 1):  # its first three are not pruned
                counted = counter.get_total_flops()
                compared(pixels, model.embed_context(words, mask, state, ends))
        total = counter.get_total_flops() - counted
        if name == 'sp-vla':
            dropped = torch.empty(1, config.patches - k, config.vision_width)
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                model.projector(dropped)
            total -= counter.get_total_flops()
    if name.startswith('flashvla'):
        total += 4 * config.patches * width**2 + 8 * width**3
    return total / TERA


def _count_cached_layers(config: VLAConfig, computed: int, text: int) -> float:
    """Count VLA-Cache's decoder if all layers but the first compute that many patches [TFLOP]."""
    length = config.patches + _rest(config, text)
    with torch.device('meta'):
        model = LightVLA(config).eval()
        x, places = torch.empty(1, length, config.language.width), torch.arange(length)[None]
        mask, everything = torch.ones(1, length, dtype=torch.bool), torch.arange(length)
        rows = [everything] * config.language.layers
        with torch.no_grad():
            _, layers = run_layers(model, x, places, mask, rows, None)
            cache = Cache(x, layers, x, [])
            rows[1:] = [everything[config.patches - computed :]] * (len(rows) - 1)
            with FlopCounterMode(display=False) as counter:
                run_layers(model, x, places, mask, rows, cache)
    return counter.get_total_flops() / TERA


def count_as_authors(config: VLAConfig, name: str, k: int, text: int) -> float:
    """Count as the methods' papers do: the decoder alone, in multiply-adds [10^12].

    A layer of n tokens counts 4 n d^2 + 2 n^2 d and the MLP: 2 n d m in FastV's paper and those
    that follow it, 3 n d m, for its three matrices, in SparseVLM's code. What the method itself
    computes is not counted. VLA-Cache's layers of n tokens that compute c count 2 n c d for the
    attention and c for n in the rest.

    :param k: See :func:`count_compared`.
    """
    language, rest = config.language, _rest(config, text)
    d, m, depth = language.width, language.mlp_width, language.layers
    mlp = 3 if name.startswith('sparsevlm') else 2
    layer = pruning_layer(name, depth)
    tokens = [config.patches] * layer + [k] * (depth - layer)
    if name == 'sparsevlm-recycled':
        tokens = visual_tokens(config.patches, k, depth)
    total = 0
    for visual in tokens:
        computed = visual + rest
        keys = config.patches + rest if name == 'vla-cache' else computed
        total += 4 * computed * d**2 + 2 * computed * keys * d + mlp * computed * d * m
    return total / TERA


def _rest(config: VLAConfig, text: int) -> int:
    """Return the number of tokens that are no patch."""
    return text + int(config.proprio_size > 0) + config.action_slots
