"""Area under the ROC curve: how well a score tells one group from another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

DRAWS = 500  # of the bootstrap
INTERVAL = (0.025, 0.975)


def auroc(high: np.ndarray, low: np.ndarray) -> float:
    """Return the probability that a number of ``high`` is above one of ``low``; ties count half.

    :param high: [N], with N at least 1; ``low`` likewise.
    """
    ordered = np.sort(low)
    below = np.searchsorted(ordered, high, 'left')
    not_above = np.searchsorted(ordered, high, 'right')
    return float((below + not_above).mean() / (2 * len(ordered)))


def auroc_interval(
    high: Sequence[np.ndarray], low: Sequence[np.ndarray], seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % interval of :func:`auroc`, by drawing whole episodes with replacement.

    Observations of one episode are alike, so they are not drawn one by one.

    :param high: The numbers of each episode, [N] each; ``low`` likewise.
    """
    random = np.random.default_rng(seed)

    def draw(groups: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate([groups[at] for at in random.integers(len(groups), size=len(groups))])

    found = [auroc(draw(high), draw(low)) for _ in range(DRAWS)]
    lower, upper = np.quantile(found, INTERVAL)
    return float(lower), float(upper)
