"""Figures of samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PERCENTILES = {'min': 0, 'p50': 50, 'p95': 95, 'p99': 99, 'max': 100}


def percentiles_ms(seconds: Sequence[float]) -> dict[str, float]:
    """Turn samples in seconds into percentiles in milliseconds."""
    return {
        name: round(float(np.percentile(seconds, at)) * 1e3, 4) for name, at in PERCENTILES.items()
    }


def ratio_p50(these: Sequence[float], those: Sequence[float]) -> float:
    """Divide the median of these samples by the median of those."""
    return round(float(np.median(these) / np.median(those)), 4)
