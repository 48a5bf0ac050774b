"""Norms and attention of all parts; the L1 head and the proprio projector.

Head and projector follow OFT's action_heads.py and projectors.py. Norms always compute in fp32, and
exported graphs keep this.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightvla_ros.vla.config import VLAConfig


class LayerNorm(nn.LayerNorm):
    """PyTorch's layer norm, computed in fp32."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> the same."""
        weight, bias = self.weight.float(), self.bias.float()
        return F.layer_norm(x.float(), self.normalized_shape, weight, bias, self.eps).to(x.dtype)


class RMSNorm(nn.Module):
    """LLaMA's norm: divides by the root mean square and multiplies by a learned gain."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> the same."""
        wide = x.float()
        # a division and not rsqrt, because engines recognise this pattern and fuse it
        wide = wide / torch.sqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


def attend(query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor | None = None) -> Tensor:
    """Softmax(Q K^T / sqrt(size) + bias) V: every query attends to every key, without causal mask.

    :param query: [B, heads, N, size]; ``key`` and ``value`` have the same shape.
    :param key_bias: [B, 1, 1, N], added to every query's scores; None if no key is padding.
    :returns: [B, heads, N, size].
    """
    return F.scaled_dot_product_attention(query, key, value, attn_mask=key_bias)


def attend_spelt_out(
    query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor | None = None
) -> Tensor:
    """Compute :func:`attend` with the softmax spelt out in fp32.

    Exported graphs have this form, so that every engine computes the softmax in the same way.
    """
    scores = (query / math.sqrt(query.shape[-1])) @ key.transpose(2, 3)
    scores = scores.float()
    if key_bias is not None:
        scores = scores + key_bias.float()
    return scores.softmax(-1).to(value.dtype) @ value


def spell_out_attention(model: nn.Module) -> None:
    """Replace the attention of all blocks of a model, before its export."""
    for module in model.modules():
        if hasattr(module, 'attend'):
            module.attend = attend_spelt_out


def padding_bias(key_mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Turn a key mask bool [B, N] into a bias for the scores: [B, 1, 1, N] of 0 and -3e4.

    The value is -3e4 and not -inf: fp16 can hold it, exp() of it is 0, and a row can never become
    NaN.
    """
    if key_mask is None:
        return None
    bias = torch.zeros_like(key_mask, dtype=dtype).masked_fill(~key_mask, -3e4)
    return bias[:, None, None, :]


class ResidualBlock(nn.Module):
    """x + ReLU(Linear(LN(x))). The indices 0 and 1 in ``ffn`` are the checkpoint's names."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ffn = nn.Sequential(LayerNorm(width), nn.Linear(width, width), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> the same."""
        return x + self.ffn(x)


class ResidualMlp(nn.Module):
    """Norm, linear layer, two residual blocks, norm, linear layer."""

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.layer_norm1 = LayerNorm(inputs)
        self.fc1 = nn.Linear(inputs, width)
        self.mlp_resnet_blocks = nn.ModuleList(ResidualBlock(width) for _ in range(2))
        self.layer_norm2 = LayerNorm(width)
        self.fc2 = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]."""
        x = F.relu(self.fc1(self.layer_norm1(x)))
        for block in self.mlp_resnet_blocks:
            x = block(x)
        return self.fc2(self.layer_norm2(x))


class L1ActionHead(nn.Module):
    """Hidden states of the action slots -> actions."""

    def __init__(self, config: VLAConfig) -> None:
        super().__init__()
        self.chunk_length = config.chunk_length
        self.model = ResidualMlp(
            config.action_size * config.language.width, config.head_width, config.action_size
        )

    def forward(self, states: Tensor) -> Tensor:
        """[B, chunk * 7, D] -> normalised actions [B, chunk, 7]; each step reads its 7 slots."""
        return self.model(states.reshape(len(states), self.chunk_length, -1))


class ProprioProjector(nn.Module):
    """The robot's state -> one token."""

    def __init__(self, config: VLAConfig) -> None:
        super().__init__()
        width = config.language.width
        self.fc1 = nn.Linear(config.proprio_size, width)
        self.fc2 = nn.Linear(width, width)

    def forward(self, proprio: Tensor) -> Tensor:
        """[B, S] normalised -> [B, 1, D]."""
        return self.fc2(F.gelu(self.fc1(proprio)))[:, None]
