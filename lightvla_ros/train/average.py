"""Means of weights: the running mean (EMA) of a run, and one between its start and its end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def between(
    start: Mapping[str, Tensor], end: Mapping[str, Tensor], share: float
) -> dict[str, Tensor]:
    """Return the weights that lie ``share`` of the way from ``start`` to ``end``.

    Fine-tuned weights often lose some of what those they began with could do; in between, both is
    kept to a large part (Wortsman et al. 2022, arXiv 2109.01903).

    :raises KeyError: When they do not have the same names.
    """
    return {name: torch.lerp(start[name], value, share) for name, value in end.items()}


class RunningMean:
    """The mean of all weights that are trained.

    :param decay: 0 keeps no mean: the weights themselves are used.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._weights = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.mean: dict[str, Tensor] = {}
        if decay:
            self.mean = {name: weight.detach().clone() for name, weight in self._weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the weights after a step (from 0) in; early means reach less far back."""
        if not self._decay:
            return
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(
            list(self.mean.values()), [self._weights[name] for name in self.mean], 1 - decay
        )

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the mean into the model inside the ``with`` block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, mean in self.mean.items():
            weight = self._weights[name]
            kept = weight.detach().clone()
            weight.copy_(mean)
            mean.copy_(kept)
