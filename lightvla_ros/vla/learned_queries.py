"""LightVLA*: learnable queries instead of the parameter-free ones (paper 5.1).

No code was released (LightVLA#21); this follows the paper's text. Selection, noise, gradient and
position ids are the same as in ``pruner.py``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lightvla_ros.vla.language import LlamaBlock, Rotation
from lightvla_ros.vla.layers import RMSNorm
from lightvla_ros.vla.pruner import in_fp32


class EncoderQueries(nn.Module):
    """Queries Q* on the towers' features, before the projector (paper 5.1.1, eq. 9).

    :param queries: N_q, the largest number of kept tokens.
    :param width: D', the number of channels of both towers together.
    """

    def __init__(self, queries: int, width: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, width))
        self.query_norm = RMSNorm(width, 1e-6)
        self.token_norm = RMSNorm(width, 1e-6)

    def scores(self, tokens: Tensor) -> Tensor:
        """LN(Q*) LN(H)^T / sqrt(D'): [B, Lv, D'] -> float32 [B, N_q, Lv]."""
        with in_fp32(tokens):
            queries = self.query_norm(self.queries.float())
            tokens = self.token_norm(tokens.float())
            return queries @ tokens.transpose(1, 2) / math.sqrt(tokens.shape[-1])


class DecoderQueries(EncoderQueries):
    """Queries after one of the first decoder layers, which also see the text (5.1.2, eq. 10).

    The paper's ``attn`` is a score per visual token and layer, which the paper does not define
    further. Here it is that layer's attention from each word of the prompt to each visual token,
    averaged over words and heads: the same number for every query.
    """

    def __init__(self, queries: int, width: int) -> None:
        super().__init__(queries, width)
        self.zeta = nn.Parameter(torch.tensor(1.0))

    def scores_with_text(self, tokens: Tensor, attention: Tensor) -> Tensor:
        """(LN(Q) LN(H)^T + zeta attn) / sqrt(D).

        :param tokens: [B, Lv, D].
        :param attention: float32 [B, Lv].
        :returns: float32 [B, N_q, Lv].
        """
        scale = math.sqrt(tokens.shape[-1])
        return self.scores(tokens) + self.zeta.float() * attention[:, None] / scale


def text_to_patch_attention(
    block: LlamaBlock,
    x: Tensor,
    rotation: Rotation,
    key_bias: Tensor | None,
    words: slice,
    word_mask: Tensor,
    patches: slice,
) -> Tensor:
    """Return a layer's attention from the words to the patches, averaged over words and heads.

    :param x: [B, N, D], the layer's input.
    :param words: Positions of the words among the N tokens.
    :param word_mask: bool [B, words], False for padding.
    :param patches: Positions of the Lv patches.
    :returns: float32 [B, Lv].
    """
    query, key = block.self_attn.queries_and_keys(block.input_layernorm(x), rotation)
    with in_fp32(x):
        query = query[:, :, words].float()
        scores = query @ key.float().transpose(2, 3) / math.sqrt(query.shape[-1])
        if key_bias is not None:
            scores = scores + key_bias.float()
        attention = scores.softmax(-1)[..., patches].mean(1)  # [B, words, Lv]
        weights = word_mask[..., None].float()
        return (attention * weights).sum(1) / weights.sum(1)
