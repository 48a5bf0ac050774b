"""Measurements that take turns, so that a drift of the machine hits all alike."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any


def take_turns(
    contestants: Mapping[Hashable, Callable[[int], Any]], rounds: int, warm_up: int
) -> dict[Hashable, list[Any]]:
    """Call every contestant once a round, with the number of the round.

    :param rounds: Rounds that count.
    :param warm_up: Rounds before them, whose results are thrown away.
    :returns: ``rounds`` results of each contestant.
    """
    results: dict[Hashable, list[Any]] = {name: [] for name in contestants}
    for number in range(warm_up + rounds):
        for name in rotated(list(contestants), number):
            result = contestants[name](number)
            if number >= warm_up:
                results[name].append(result)
    return results


def rotated(items: Sequence[Any], number: int) -> list[Any]:
    """Return the items with another one first for every number."""
    start = number % len(items)
    return [*items[start:], *items[:start]]
