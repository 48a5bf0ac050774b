"""Optimizers and their learning rate, a function of the step alone."""

from __future__ import annotations

import bisect
import math

import torch
from torch import nn
from torch.optim import Optimizer

from lightvla_ros.train.config import OptimizerConfig
from lightvla_ros.train.muon import Muon

# Matrices between embeddings and heads: Muon is for these
HIDDEN = ('vision_backbone.', 'projector.', 'language_model.model.layers.')


def make_optimizers(model: nn.Module, config: OptimizerConfig) -> list[Optimizer]:
    """Return the optimizers of all weights that are trained; ``initial_lr`` is in each group."""
    muon, decayed, plain = [], [], []
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            continue
        matrix = weight.ndim == 2 and 'embed_tokens' not in name
        if config.name == 'muon' and matrix and name.startswith(HIDDEN):
            muon.append(weight)
        elif matrix or name.endswith('patch_embed.proj.weight'):
            decayed.append(weight)
        else:
            plain.append(weight)
    groups = [
        {'params': decayed, 'weight_decay': config.weight_decay},
        {'params': plain, 'weight_decay': 0.0},
    ]
    adamw = torch.optim.AdamW(
        [group for group in groups if group['params']], config.lr, config.betas, fused=True
    )
    optimizers: list[Optimizer] = [adamw]
    if muon:
        rate = config.lr if config.muon_lr is None else config.muon_lr
        optimizers.append(Muon(muon, rate, config.weight_decay))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group['initial_lr'] = group['lr']
    return optimizers


def rate_factor(config: OptimizerConfig, step: int, steps: int) -> float:
    """Return what the learning rates are multiplied by at a step from 0 to ``steps`` - 1."""
    warm = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    if config.schedule == 'step':
        return warm * config.gamma ** bisect.bisect_right(config.milestones, step)
    if config.schedule == 'cosine':
        run = max(steps - config.warmup, 1)
        return warm * 0.5 * (1 + math.cos(math.pi * max(step - config.warmup, 0) / run))
    return warm


def set_rate(optimizers: list[Optimizer], factor: float) -> None:
    """Set the learning rates for the next step."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group['lr'] = group['initial_lr'] * factor
