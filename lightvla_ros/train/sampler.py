"""Which frames a step sees: epochs of seeded permutations.

Everything follows from seed and step alone, so a run that goes on after a stop needs no state.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class Sampler:
    """Frames by step.

    :param groups: Row numbers int64 [n] of each group of frames.
    :param weights: How often an epoch shows each frame of a group; of a fraction's remainder a new
        random part is shown in each epoch.
    :param batch: Frames of one step, of all processes and accumulations together.
    """

    def __init__(
        self, groups: Sequence[np.ndarray], weights: Sequence[float], batch: int, seed: int
    ) -> None:
        self._groups, self._weights = list(groups), list(weights)
        self.batch, self._seed = batch, seed
        self.epoch_frames = sum(
            round(weight * len(group)) for group, weight in zip(groups, weights, strict=True)
        )
        self._epoch: tuple[int, np.ndarray] | None = None

    def rows(self, step: int) -> np.ndarray:
        """Return the row numbers int64 [batch] of a step, which may reach into the next epoch."""
        first, parts, missing = step * self.batch, [], self.batch
        while missing:
            epoch, offset = divmod(first, self.epoch_frames)
            part = self._permutation(epoch)[offset : offset + missing]
            parts.append(part)
            first, missing = first + len(part), missing - len(part)
        return np.concatenate(parts)

    def _permutation(self, epoch: int) -> np.ndarray:
        if self._epoch is None or self._epoch[0] != epoch:
            random = np.random.default_rng([self._seed, epoch])
            shown = []
            for group, weight in zip(self._groups, self._weights, strict=True):
                whole, rest = divmod(round(weight * len(group)), max(len(group), 1))
                shown += [group] * whole
                shown.append(random.permutation(group)[:rest])
            self._epoch = epoch, random.permutation(np.concatenate(shown))
        return self._epoch[1]


def step_seed(seed: int, step: int, rank: int = 0, part: int = 0) -> int:
    """Return the seed of all random numbers of one step of one process."""
    return int(np.random.SeedSequence([seed, step, rank, part]).generate_state(1, np.uint64)[0])
