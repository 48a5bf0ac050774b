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
            for weight in group['params']:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state['momentum'] = torch.zeros_like(weight)
                momentum, keep = state['momentum'], group['momentum']
                momentum.lerp_(weight.grad, 1 - keep)
                update = orthogonal(weight.grad.lerp(momentum, keep))
                weight.mul_(1 - group['lr'] * group['weight_decay'])
                weight.add_(update, alpha=-group['lr'] * 0.2 * math.sqrt(max(weight.shape)))


def orthogonal(matrix: Tensor) -> Tensor:
    """Bring all singular values of a matrix near 1, by Newton and Schulz."""
    a, b, c = COEFFICIENTS
    x = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(ROUNDS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if tall else x
