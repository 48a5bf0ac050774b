"""Norms, computed in fp32 whatever the model runs in: an engine's graph takes them over so."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LayerNorm(nn.LayerNorm):
    """PyTorch's, in fp32."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> the same."""
        weight, bias = self.weight.float(), self.bias.float()
        return F.layer_norm(x.float(), self.normalized_shape, weight, bias, self.eps).to(x.dtype)


class RMSNorm(nn.Module):
    """Divide by the root mean square and multiply by a learned gain (LLaMA's)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> the same."""
        wide = x.float()
        # a division and not rsqrt: in this form engines know the pattern and fuse it
        wide = wide / torch.sqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)
