"""Attention of every query to every key: nothing here can be causal."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def attend(query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor | None = None) -> Tensor:
    """Softmax(Q K^T / sqrt(size) + bias) V.

    :param query: [B, heads, N, size]; ``key`` and ``value`` likewise.
    :param key_bias: [B, 1, 1, N], added to every query's scores; None where no key is padding.
    :returns: [B, heads, N, size].
    """
    if not torch.compiler.is_exporting():
        return F.scaled_dot_product_attention(query, key, value, attn_mask=key_bias)
    # In a graph the softmax is spelt out, in fp32: an engine of another make decides nothing.
    scores = (query / math.sqrt(query.shape[-1])) @ key.transpose(2, 3)
    scores = scores.float()
    if key_bias is not None:
        scores = scores + key_bias.float()
    return scores.softmax(-1).to(value.dtype) @ value
