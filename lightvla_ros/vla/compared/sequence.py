"""The decoder's input with all patches, and a layer's attention."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightvla_ros.vla.language import LlamaBlock, Rotation

if TYPE_CHECKING:
    from lightvla_ros.vla.model import Context


def whole_sequence(patches: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
    """Put all patches [1, Lv, D] before the context.

    :returns: Tokens [1, N, D], position ids int64 [1, N] and mask bool [1, N], False for padding.
    """
    places = 1 + torch.arange(patches.shape[1], device=patches.device)[None]
    return (
        torch.cat([patches, context.tokens], dim=1),
        torch.cat([places, context.positions], dim=1),
        torch.cat([torch.ones_like(places, dtype=torch.bool), context.mask], dim=1),
    )


def attention_map(
    block: LlamaBlock, states: Tensor, rotation: Rotation, key_bias: Tensor | None
) -> Tensor:
    """Return the attention of a layer with the input [1, N, D], over heads: float32 [N, N]."""
    query, key = block.self_attn.queries_and_keys(block.input_layernorm(states), rotation)
    scores = query[0].float() @ key[0].float().transpose(1, 2) / math.sqrt(query.shape[-1])
    if key_bias is not None:
        scores = scores + key_bias[0].float()
    return scores.softmax(-1).mean(0)
