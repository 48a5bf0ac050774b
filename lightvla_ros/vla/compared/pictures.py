"""What the towers saw, for methods that look at the pixels or at SigLIP's attention."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lightvla_ros.vla.model import LightVLA

MEAN = STD = 0.5  # of SigLIP's normalisation, for all colours


@dataclass(frozen=True)
class Pictures:
    """Pictures of a chunk.

    :param pixels: [cameras, 6, H, W], preprocessed; the channels 3 to 5 are SigLIP's.
    :param qkv: [cameras, tokens, 3 * width], queries, keys and values of the last block of SigLIP
        that is run.
    """

    pixels: Tensor
    qkv: Tensor

    @property
    def rgb(self) -> Tensor:
        """The policy's view [cameras, 3, H, W], float32 of whole numbers in 0 to 255."""
        levels = 255 * (MEAN + STD * self.pixels[:, 3:].float())
        return levels.round().clamp(0, 255)

    def siglip_attention(self, heads: int, prefix: int) -> Tensor:
        """Return the mean attention to each patch over heads and queries: float32 [Lv].

        :param heads: Number of the block's heads.
        :param prefix: Number of its tokens before the patches.
        """
        query, key, _ = (
            part.unflatten(-1, (heads, -1)).transpose(1, 2).float()
            for part in self.qkv.chunk(3, dim=-1)
        )
        scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])
        return scores.softmax(-1).mean((1, 2))[:, prefix:].flatten()


def look(model: LightVLA, pixels: Tensor, language: Tensor | None) -> tuple[Tensor, Pictures]:
    """Run the towers on pixels [1, cameras, 6, H, W] -> features [1, Lv, D'], and what they saw."""
    found: list[Tensor] = []
    attention = model.vision_backbone.fused_featurizer.blocks[-1].attn
    hook = attention.qkv.register_forward_hook(lambda *call: found.append(call[2]))
    try:
        features = model.vision_backbone(pixels, language)
    finally:
        hook.remove()
    return features, Pictures(pixels[0], found[0])


def cells(pictures: Tensor, patch: int) -> Tensor:
    """Cut [cameras, channels, H, W] into patches: [cameras, patches, channels * patch * patch]."""
    grid = pictures.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))
    # [cameras, channels, rows, patch, columns, patch]
    return grid.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def whole_numbers(rgb: Tensor) -> Tensor:
    """Turn [cameras, 3, H, W] in 0 to 255 into pictures uint8 [cameras, H, W, 3]."""
    return rgb.permute(0, 2, 3, 1).to(torch.uint8).contiguous()
