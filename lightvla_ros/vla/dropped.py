"""What a published checkpoint holds and nobody reads, by name and shape."""

from __future__ import annotations

import torch

from lightvla_ros.vla.config import VLAConfig
from lightvla_ros.vla.vision import Block
from lightvla_ros.vla.weights import Shapes


def dropped_shapes(config: VLAConfig) -> Shapes:
    """Return the parameters of a published VLA that do no work: dropped, but known by name.

    Features are read before each tower's last block, hence no last block, no norm, no attention
    pool; actions come from the L1 head, hence no ``lm_head``.
    """
    language = config.language
    dropped = {'language_model.lm_head.weight': (language.vocabulary, language.width)}
    for name, tower in (('featurizer', config.dino), ('fused_featurizer', config.siglip)):
        stem = f'vision_backbone.{name}'
        with torch.device('meta'):
            block = Block(tower).state_dict()
        for key, value in block.items():
            dropped[f'{stem}.blocks.{tower.depth - 1}.{key}'] = tuple(value.shape)
        wide = (tower.width,)
        dropped |= {f'{stem}.norm.weight': wide, f'{stem}.norm.bias': wide}
        if tower.attention_pool:
            dropped |= _attention_pool(f'{stem}.attn_pool', tower.width, tower.mlp_width)
    return dropped


def _attention_pool(stem: str, width: int, mlp_width: int) -> Shapes:
    """Timm's AttentionPoolLatent."""
    shapes = {f'{stem}.latent': (1, 1, width)}
    for name, rows, columns in (
        ('q', width, width),
        ('kv', 2 * width, width),
        ('proj', width, width),
        ('mlp.fc1', mlp_width, width),
        ('mlp.fc2', width, mlp_width),
    ):
        shapes[f'{stem}.{name}.weight'] = (rows, columns)
        shapes[f'{stem}.{name}.bias'] = (rows,)
    return shapes | {f'{stem}.norm.weight': (width,), f'{stem}.norm.bias': (width,)}
