"""LLaMA's decoder blocks, with every token attending to every other one.

OpenVLA-OFT decodes all actions in parallel and needs bidirectional attention. Upstream gets it from
one patched attention class in a fork of transformers; every other class silently stays causal and
costs 40 points of success (openvla-oft#135). These blocks have no causal mask at all: the caller
gives a mask of keys, which excludes only padding. Parameter names are the checkpoint's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightvla_ros.vla.config import LanguageConfig
from lightvla_ros.vla.layers import RMSNorm, attend, padding_bias

Rotation = tuple[Tensor, Tensor]  # cos and signed sin of RoPE's angles, [B, 1, N, head_size]


def rope_rotation(positions: Tensor, head_size: int, theta: float, dtype: torch.dtype) -> Rotation:
    """Return cosines and sines of the rotary embedding, whose angles are computed in fp32.

    :param positions: int [B, N], the original position ids; gaps are allowed.
    """
    half = torch.arange(0, head_size, 2, device=positions.device, dtype=torch.float32)
    frequency = theta ** (-half / head_size)
    # even with autocast, a product of fp32 tensors is fp32; only matmuls are cast
    angle = positions[..., None].float() * frequency  # [B, N, head_size / 2]
    cos, sin = angle.cos(), angle.sin()
    # the sign that rotate() needs is applied here, once for all layers
    pair = torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)
    return pair[0][:, None].to(dtype), pair[1][:, None].to(dtype)


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn each pair (i, i + head_size / 2) of [B, heads, N, head_size] by its angle."""
    low, high = x.chunk(2, dim=-1)
    return x * rotation[0] + torch.cat([high, low], dim=-1) * rotation[1]


class LlamaAttention(nn.Module):
    """Bidirectional self-attention."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.attend = attend  # an export replaces it by another form
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)

    def queries(self, x: Tensor) -> Tensor:
        """[..., width] -> queries of all heads [..., width], not rotated."""
        return self.q_proj(x)

    def keys(self, x: Tensor) -> Tensor:
        """[..., width] -> keys of all heads [..., width], not rotated."""
        return self.k_proj(x)

    def queries_and_keys(self, x: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
        """[B, N, width] -> two of [B, heads, N, head_size], rotated."""
        query = self._split(self.q_proj(x))
        key = self._split(self.k_proj(x))
        return rotate(query, rotation), rotate(key, rotation)

    def forward(self, x: Tensor, rotation: Rotation, key_bias: Tensor | None) -> Tensor:
        """[B, N, width] -> the same; ``key_bias`` [B, 1, 1, N] is added to every query's scores."""
        query, key = self.queries_and_keys(x, rotation)
        value = self._split(self.v_proj(x))
        x = self.attend(query, key, value, key_bias)
        return self.o_proj(x.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class LlamaMlp(nn.Module):
    """SwiGLU."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.mlp_width, bias=False)
        self.up_proj = nn.Linear(config.width, config.mlp_width, bias=False)
        self.down_proj = nn.Linear(config.mlp_width, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> the same."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class LlamaBlock(nn.Module):
    """One decoder layer."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.self_attn = LlamaAttention(config)
        self.mlp = LlamaMlp(config)
        self.input_layernorm = RMSNorm(config.width, config.norm_eps)
        self.post_attention_layernorm = RMSNorm(config.width, config.norm_eps)

    def forward(self, x: Tensor, rotation: Rotation, key_bias: Tensor | None) -> Tensor:
        """[B, N, width] -> the same."""
        x = x + self.self_attn(self.input_layernorm(x), rotation, key_bias)
        return x + self.mlp(self.post_attention_layernorm(x))


class LlamaModel(nn.Module):
    """Embeddings, blocks and final norm; there is no ``lm_head``, because logits are not used."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocabulary, config.width)
        self.layers = nn.ModuleList(LlamaBlock(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_eps)

    def rotation(self, positions: Tensor, dtype: torch.dtype) -> Rotation:
        """Return RoPE's rotation at position ids int [B, N]."""
        head_size = self.config.width // self.config.heads
        return rope_rotation(positions, head_size, self.config.rope_theta, dtype)

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        key_mask: Tensor | None = None,
        first_layer: int = 0,
        copies: Tensor | None = None,
    ) -> Tensor:
        """Run the layers from ``first_layer`` on.

        :param x: [B, N, D] embeddings, or states if earlier layers have run.
        :param positions: int [B, N].
        :param key_mask: bool [B, N], False for padding; None if there is no padding.
        :param copies: float32 [B, K], how often each of the first K tokens counts (``pruner.py``);
            None: once.
        :returns: [B, N, D], without the final :attr:`norm`, which the caller applies.
        """
        rotation = self.rotation(positions, x.dtype)
        key_bias = padding_bias(key_mask, x.dtype)
        if copies is not None:
            more = copies.clamp_min(1).log().to(x.dtype)
            key_bias = key_bias + F.pad(more, (0, x.shape[1] - more.shape[1]))[:, None, None]
        for layer in self.layers[first_layer:]:
            x = layer(x, rotation, key_bias)
        return x


class LanguageModel(nn.Module):
    """Wrapper for the checkpoint's names, which begin with ``language_model.model.``."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.model = LlamaModel(config)
