"""Optimisers: AdamW and Muon with schedules, and their state.

Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) runs in fp32. ``torch.optim.Muon``
always orthogonalises in bf16, which a CPU without bf16 emulates ten times slower than fp32; a step
of the small policy then took three times as long.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightvla_ros.train.config import OptimizerConfig

# Muon is for the matrices between embeddings and heads
HIDDEN = ('vision_backbone.', 'projector.', 'language_model.model.layers.')

ROUNDS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the published quintic


def make_optimizers(model: nn.Module, config: OptimizerConfig) -> list[Optimizer]:
    """Return the optimizers of all trained weights; each group has ``initial_lr``."""
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
    """Return the factor on the learning rates at a step from 0 to ``steps`` - 1."""
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


class Muon(Optimizer):
    """Momentum with an orthogonalised update, scaled to the size of AdamW's.

    :param weights: Matrices, 2-D.
    :param decay: Decoupled weight decay, as in AdamW.
    """

    def __init__(
        self, weights: Iterable[Tensor], lr: float, decay: float, momentum: float = 0.95
    ) -> None:
        super().__init__(weights, {'lr': lr, 'weight_decay': decay, 'momentum': momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Change the weights that have a gradient."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
            for weight in group['params']:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state['momentum'] = torch.zeros_like(weight)
                momentum, keep = state['momentum'], group['momentum']
                momentum.lerp_(weight.grad, 1 - keep)
                update = weight.grad.lerp(momentum, keep)
                alike.setdefault(weight.shape, []).append((weight, update))
            for shape, pairs in alike.items():
                updates = orthogonal(torch.stack([update for _, update in pairs]))
                size = group['lr'] * 0.2 * math.sqrt(max(shape))
                for (weight, _), update in zip(pairs, updates, strict=True):
                    weight.mul_(1 - group['lr'] * group['weight_decay'])
                    weight.add_(update, alpha=-size)


def orthogonal(matrices: Tensor) -> Tensor:
    """Bring all singular values of matrices [..., rows, columns] near 1, by Newton and Schulz."""
    a, b, c = COEFFICIENTS
    x = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    for _ in range(ROUNDS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x


def optimizers_state(model: nn.Module, optimizers: list[Optimizer], parallel: str) -> Any:
    """Return the state of all optimizers; all processes must call it if weights are sharded."""
    if parallel != 'fsdp2':
        return [optimizer.state_dict() for optimizer in optimizers]
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_optimizer_state_dict,
    )

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return [get_optimizer_state_dict(model, each, options=options) for each in optimizers]


def load_optimizers(
    model: nn.Module, optimizers: list[Optimizer], state: Any, parallel: str
) -> None:
    """Restore the states; the inverse of :func:`optimizers_state`."""
    if parallel != 'fsdp2':
        for optimizer, each in zip(optimizers, state, strict=True):
            optimizer.load_state_dict(each)
        return
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        set_optimizer_state_dict,
    )

    options = StateDictOptions(full_state_dict=True)
    for optimizer, each in zip(optimizers, state, strict=True):
        set_optimizer_state_dict(model, optimizer, each, options=options)
