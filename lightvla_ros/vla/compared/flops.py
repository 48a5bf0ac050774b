"""FLOPs of a chunk with a compared method, counted as for LightVLA and as its authors count."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from lightvla_ros.vla.compared.pruned_model import ComparedModel, pruning_layer
from lightvla_ros.vla.config import VLAConfig
from lightvla_ros.vla.flops import TERA
from lightvla_ros.vla.model import LightVLA


def count_compared(config: VLAConfig, name: str, k: int, text: int) -> float:
    """Count a pruned chunk with everything that the method itself computes [TFLOP].

    The map of attention that a method reads is computed twice, by the layer and for the method, as
    the fused attention does not return it. An SVD of n x D counts 4 n D^2 + 8 D^3, which torch's
    counter leaves out.

    :param text: Number of text tokens: BOS, the prompt's words and stop.
    """
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
    if name == 'flashvla':
        total += 4 * config.patches * width**2 + 8 * width**3
    return total / TERA


def count_as_authors(config: VLAConfig, name: str, k: int, text: int) -> float:
    """Count as the methods' papers do: the decoder alone, in multiply-adds [10^12].

    A layer of n tokens counts 4 n d^2 + 2 n^2 d and the MLP: 2 n d m in FastV's paper and those
    that follow it, 3 n d m, for its three matrices, in SparseVLM's code. What the method itself
    computes is not counted.
    """
    language, layer = config.language, pruning_layer(name, config.language.layers)
    rest = text + int(config.proprio_size > 0) + config.action_slots
    d, m = language.width, language.mlp_width
    mlp = 3 if name == 'sparsevlm' else 2

    def one(n: int) -> int:
        return 4 * n * d**2 + 2 * n**2 * d + mlp * n * d * m

    all_tokens, kept = one(config.patches + rest), one(k + rest)
    return (layer * all_tokens + (language.layers - layer) * kept) / TERA
