"""Success rates and their uncertainty: Wilson, McNemar, Newcombe."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from scipy.stats import binomtest


def rate_of(successes: int, episodes: int) -> dict[str, float | None]:
    """Return the success rate with its Wilson 95 % interval: ``rate``, ``low``, ``high``."""
    if episodes == 0:
        return {'rate': None, 'low': None, 'high': None}
    low, high = _wilson(successes, episodes)
    return {
        'rate': round(successes / episodes, 4),
        'low': round(low, 4),
        'high': round(high, 4),
    }


@dataclass(frozen=True)
class PairedOutcomes:
    """Counts of the outcomes of episodes that were run twice.

    :param both: Number of episodes solved in both runs.
    :param first: Number solved only in the first run.
    :param second: Number solved only in the second run.
    :param neither: Number solved in neither run.
    """

    both: int
    first: int
    second: int
    neither: int

    @property
    def count(self) -> int:
        """Number of all pairs."""
        return self.both + self.first + self.second + self.neither

    def p_value(self) -> float:
        """Return the p value of McNemar's test, exact and two-sided."""
        disagreeing = self.first + self.second
        return float(binomtest(self.first, disagreeing).pvalue) if disagreeing else 1.0

    def difference(self) -> tuple[float, float, float]:
        """First rate minus second, with Newcombe's 95 % interval for paired proportions.

        Method 10 of R. G. Newcombe, Improved confidence intervals for the difference between
        binomial proportions based on paired data, Statistics in Medicine 17 (1998): the distances
        from each rate to its Wilson limits, put together by the correlation phi, which is corrected
        for continuity.

        :returns: Difference, lower and upper limit.
        :raises ValueError: When there are no pairs.
        """
        if not self.count:
            raise ValueError('there are no pairs')
        count = self.count
        rates = [(self.both + alone) / count for alone in (self.first, self.second)]
        limits = [_wilson(self.both + alone, count) for alone in (self.first, self.second)]
        below = [rate - low for rate, (low, _) in zip(rates, limits, strict=True)]
        above = [high - rate for rate, (_, high) in zip(rates, limits, strict=True)]
        phi, difference = self._phi(), rates[0] - rates[1]
        return (
            difference,
            difference - _distance(below[0], above[1], phi),
            difference + _distance(above[0], below[1], phi),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the counts and the figures computed from them, for JSON."""
        difference, low, high = self.difference()
        return {
            'pairs': self.count,
            **asdict(self),
            'first_rate': rate_of(self.both + self.first, self.count),
            'second_rate': rate_of(self.both + self.second, self.count),
            'difference': round(difference, 4),
            'low': round(low, 4),
            'high': round(high, 4),
            'p_value': self.p_value(),
        }

    def _phi(self) -> float:
        margins = (
            (self.both + self.first)
            * (self.second + self.neither)
            * (self.both + self.second)
            * (self.first + self.neither)
        )
        if not margins:
            return 0.0
        product = self.both * self.neither - self.first * self.second
        if product > 0:
            product = max(product - self.count / 2, 0)
        return product / math.sqrt(margins)


def _wilson(successes: int, episodes: int) -> tuple[float, float]:
    interval = binomtest(successes, episodes).proportion_ci(method='wilson')
    return float(interval.low), float(interval.high)


def _distance(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(one**2 - 2 * phi * one * other + other**2, 0.0))
