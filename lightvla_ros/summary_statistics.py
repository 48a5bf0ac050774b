"""Summary statistics: percentiles, and mean with standard deviation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PERCENTILES = {'min': 0, 'p50': 50, 'p95': 95, 'p99': 99, 'max': 100}


def percentiles(
    samples: Sequence[float] | np.ndarray,
    names: Sequence[str] = ('p50', 'p95', 'p99', 'max'),
    digits: int | None = None,
) -> dict[str, float]:
    """Return percentiles of at least one sample, by names of :data:`PERCENTILES`.

    :param digits: Number of digits to round to; None does not round.
    """
    found = {name: float(np.percentile(samples, PERCENTILES[name])) for name in names}
    return found if digits is None else {name: round(each, digits) for name, each in found.items()}


def mean_and_sd(samples: Sequence[float]) -> dict[str, float | None]:
    """Return ``mean`` and ``sd`` (the population's: divided by N, not N - 1) to two digits.

    Both are None when there is no sample.
    """
    if not len(samples):
        return {'mean': None, 'sd': None}
    return {'mean': round(float(np.mean(samples)), 2), 'sd': round(float(np.std(samples)), 2)}
