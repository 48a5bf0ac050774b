"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) in fp32.

``torch.optim.Muon`` orthogonalises in bf16 whatever the weights are; a CPU without bf16 emulates
that ten times slower than fp32, which made a step of the small policy take three times as long.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

ROUNDS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the published quintic


class Muon(Optimizer):
    """Momentum whose update is orthogonalised, and scaled to the size of AdamW's.

    :param weights: Matrices, 2-D.
    :param decay: Decoupled, as AdamW's.
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
