"""The two vision towers and their fusion. Parameter names are the checkpoint's (timm's).

DINOv2-L/14 with 4 registers and SigLIP-So400m/14 see the same image; each patch's features are
concatenated. As published, features are the output of the *second-to-last* block, without the final
norm (modeling_prismatic.py, ``get_intermediate_layers``). The last block, the norm and SigLIP's
attention pool are therefore not built; ``export/published.py`` lists the weights that it drops.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightvla_ros.vla.config import TowerConfig, VLAConfig
from lightvla_ros.vla.layers import LayerNorm, attend, padding_bias


class LayerScale(nn.Module):
    """A learned gain per channel. Upstream renames timm's ``gamma`` to ``scale_factor``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale_factor = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> the same."""
        return x * self.scale_factor


class Attention(nn.Module):
    """Self-attention of all tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attend = attend  # an export replaces it by another form
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, key_bias: Tensor | None = None) -> Tensor:
        """[B, N, width] -> the same; ``key_bias`` [1, 1, 1, N] is added to every query's scores."""
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, heads, N, width / heads]
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        return self.proj(self.attend(query, key, value, key_bias).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two layers with a GELU between them."""

    def __init__(self, width: int, hidden: int, gelu: str) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self._approximate = 'none' if gelu == 'exact' else 'tanh'

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> the same."""
        return self.fc2(F.gelu(self.fc1(x), approximate=self._approximate))


class Block(nn.Module):
    """A pre-norm transformer block, optionally modulated by the language (FiLM)."""

    def __init__(self, config: TowerConfig, film_width: int = 0) -> None:
        super().__init__()
        width = config.width
        self.norm1 = LayerNorm(width, config.norm_eps)
        self.attn = Attention(width, config.heads)
        self.ls1 = LayerScale(width) if config.layer_scale else nn.Identity()
        self.norm2 = LayerNorm(width, config.norm_eps)
        self.mlp = Mlp(width, config.mlp_width, config.gelu)
        self.ls2 = LayerScale(width) if config.layer_scale else nn.Identity()
        if film_width:
            self.scale = nn.Linear(film_width, width)
            self.shift = nn.Linear(film_width, width)

    def forward(
        self, x: Tensor, language: Tensor | None = None, key_bias: Tensor | None = None
    ) -> Tensor:
        """[B, N, width] -> the same; ``language`` [B, film_width] only with FiLM."""
        x = x + self.ls1(self.attn(self.norm1(x), key_bias))
        if language is not None:
            # between attention and MLP (film_vit_wrapper.py): x (1 + gamma) + beta
            x = x * (1 + self.scale(language)[:, None]) + self.shift(language)[:, None]
        return x + self.ls2(self.mlp(self.norm2(x)))


class PatchEmbedding(nn.Module):
    """Cuts an image into patches and embeds each patch."""

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, patches, width], row by row."""
        return self.proj(pixels).flatten(2).transpose(1, 2)


class Tower(nn.Module):
    """One vision transformer up to its second-to-last block."""

    def __init__(
        self, config: TowerConfig, image_size: int, patch_size: int, film_width: int = 0
    ) -> None:
        super().__init__()
        width, patches = config.width, (image_size // patch_size) ** 2
        if config.class_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        if config.registers:
            self.reg_token = nn.Parameter(torch.zeros(1, config.registers, width))
        # only for patches: class token and registers have no position ("no_embed_class")
        self.pos_embed = nn.Parameter(torch.randn(1, patches, width) * 0.02)
        self.patch_embed = PatchEmbedding(width, patch_size)
        self.blocks = nn.ModuleList(Block(config, film_width) for _ in range(config.depth - 1))
        self.prefix = int(config.class_token) + config.registers
        self.multiple = 1  # a GPU engine pads the tokens to a multiple, for aligned kernels

    def forward(self, pixels: Tensor, language: Tensor | None = None) -> Tensor:
        """[B, 3, H, W] -> [B, patches, width]; class token and registers are dropped."""
        x = self.patch_embed(pixels) + self.pos_embed
        prefix = [
            getattr(self, name).expand(len(x), -1, -1)
            for name in ('cls_token', 'reg_token')
            if hasattr(self, name)
        ]
        x = torch.cat([*prefix, x], dim=1)
        count, key_bias = x.shape[1], None
        if padding := -count % self.multiple:
            x = F.pad(x, (0, 0, 0, padding))
            key_bias = padding_bias(
                (torch.arange(x.shape[1], device=x.device) < count)[None], x.dtype
            )
        for block in self.blocks:
            x = block(x, language, key_bias)
        return x[:, self.prefix : count]


class VisionBackbone(nn.Module):
    """Both towers over all cameras in one batch."""

    def __init__(self, config: VLAConfig) -> None:
        super().__init__()
        film_width = config.language.width if config.film else 0
        arguments = (config.image_size, config.patch_size, film_width)
        self.featurizer = Tower(config.dino, *arguments)
        self.fused_featurizer = Tower(config.siglip, *arguments)

    def forward(self, pixels: Tensor, language: Tensor | None = None) -> Tensor:
        """Images -> features of all patches.

        :param pixels: [B, cameras, 6, H, W]; channels 0-2 normalised for DINOv2, 3-5 for SigLIP.
        :param language: [B, D], mean text embedding; only with FiLM.
        :returns: [B, cameras * patches, D'], one camera after the other.
        """
        batch, cameras = pixels.shape[:2]
        images = pixels.flatten(0, 1)  # [B * cameras, 6, H, W]
        if language is not None:
            language = language.repeat_interleave(cameras, dim=0)
        features = torch.cat(self.run_towers(images, language), dim=-1)
        return features.view(batch, -1, features.shape[-1])

    def run_towers(self, images: Tensor, language: Tensor | None) -> tuple[Tensor, Tensor]:
        """Run the towers, which do not depend on each other; a GPU engine runs them side by side.

        :param images: [B, 6, H, W].
        :returns: Two of [B, patches, width of the tower].
        """
        return (
            self.featurizer(images[:, :3], language),
            self.fused_featurizer(images[:, 3:], language),
        )


class Projector(nn.Module):
    """Features of the towers -> tokens of the language model (modeling_prismatic.py, fused MLP)."""

    def __init__(self, config: VLAConfig) -> None:
        super().__init__()
        width = config.language.width
        self.fc1 = nn.Linear(config.vision_width, config.projector_width)
        self.fc2 = nn.Linear(config.projector_width, width)
        self.fc3 = nn.Linear(width, width)

    def forward(self, features: Tensor) -> Tensor:
        """[B, Lv, D'] -> [B, Lv, D]."""
        return self.fc3(F.gelu(self.fc2(F.gelu(self.fc1(features)))))
