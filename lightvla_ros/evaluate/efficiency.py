"""What two policies spend on the same solved episodes: steps, ways and jerk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lightvla_ros.evaluate.episodes import EpisodeRecord

UNITS = {'steps': '', 'hand_path': 'm', 'joint_travel': 'rad', 'jerk': 'm/s^3'}


def efficiency(pairs: Sequence[tuple[EpisodeRecord, EpisodeRecord]]) -> dict[str, Any]:
    """Compare the episodes that both have solved.

    :returns: For each figure of :data:`UNITS` that both results hold (older ones only have steps):
        ``pairs``, the means ``first`` and ``second``, the mean ``difference`` second - first, and
        its 95 % interval ``low`` to ``high`` (normal; None with fewer than two pairs).
    """
    solved = [pair for pair in pairs if pair[0].success and pair[1].success]
    found = {}
    for name in UNITS:
        values = [each for each in (_values(pair, name) for pair in solved) if None not in each]
        if not values:
            continue
        first, second = np.array(values).T
        difference = second - first
        mean, half = float(difference.mean()), None
        if len(difference) > 1:
            half = 1.96 * float(difference.std(ddof=1)) / math.sqrt(len(difference))
        found[name] = {
            'pairs': len(values),
            'first': round(float(first.mean()), 4),
            'second': round(float(second.mean()), 4),
            'difference': round(mean, 4),
            'low': None if half is None else round(mean - half, 4),
            'high': None if half is None else round(mean + half, 4),
        }
    return found


def lines(found: dict[str, Any]) -> list[str]:
    """Return the figures of :func:`efficiency` as a table; nothing when there are none."""
    if not found:
        return []
    rows = ['', f'{"both solved":<22}{"pairs":>6}{"A":>10}{"B":>10}{"B - A":>10}   95 % interval']
    for name, row in found.items():
        title = f'{name.replace("_", " ")} [{UNITS[name]}]' if UNITS[name] else name
        interval = '' if row['low'] is None else f'{row["low"]:+.3f} to {row["high"]:+.3f}'
        rows.append(
            f'{title:<22}{row["pairs"]:>6}{row["first"]:>10.3f}{row["second"]:>10.3f}'
            f'{row["difference"]:>+10.3f}   {interval}'
        )
    return rows


def _values(
    pair: tuple[EpisodeRecord, EpisodeRecord], name: str
) -> tuple[float | None, float | None]:
    if name == 'steps':
        return pair[0].steps, pair[1].steps
    return pair[0].motion.get(name), pair[1].motion.get(name)
