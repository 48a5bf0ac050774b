"""The token ablations of the paper's table 4, only for evaluation in PyTorch.

They act on a model only inside ``with ablated(model, ...)``, in eval mode, and a model cannot be
exported there: the released code once contained a 10 % drop by mistake
(``docs/explanation/pruning.md``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightvla_ros.vla.pruner import Ablation

if TYPE_CHECKING:
    from lightvla_ros.vla.model import LightVLA


def add_random(seed: int) -> Ablation:
    """Keep the k tokens and k others at random (2k in all, or all Lv if there are fewer)."""
    generator = torch.Generator().manual_seed(seed)

    def ablate(kept: Tensor) -> Tensor:
        return torch.stack([row | _some(~row, int(row.sum()), generator) for row in kept])

    return ablate


def drop_random(seed: int, share: float = 0.1) -> Ablation:
    """Drop a share of the kept tokens at random, rounded; at least one token is kept."""
    if not 0 <= share < 1:
        raise ValueError(f'share {share} is not in [0, 1)')
    generator = torch.Generator().manual_seed(seed)

    def ablate(kept: Tensor) -> Tensor:
        rows = []
        for row in kept:
            count = int(row.sum())
            rows.append(row & ~_some(row, min(round(share * count), count - 1), generator))
        return torch.stack(rows)

    return ablate


@contextmanager
def ablated(model: LightVLA, ablation: Ablation) -> Iterator[None]:
    """Apply an ablation to the tokens that a model keeps, inside the ``with`` block.

    :raises ValueError: When the model does not prune, or is in training mode.
    """
    if model.config.pruning.method == 'off':
        raise ValueError('pruning is off: there is nothing to ablate')
    if model.training:
        raise ValueError('an ablation is only for evaluation: call model.eval() first')
    model.ablation = ablation
    try:
        yield
    finally:
        model.ablation = None


def _some(candidates: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Mark ``count`` of the candidates (or all if there are fewer), drawn uniformly."""
    places = candidates.nonzero()[:, 0]
    order = torch.randperm(len(places), generator=generator).to(places.device)
    marked = torch.zeros_like(candidates)
    marked[places[order[:count]]] = True
    return marked
