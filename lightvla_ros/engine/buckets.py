"""Which bucket a number of kept tokens goes into."""

from __future__ import annotations

from bisect import bisect_left


def smallest_bucket(buckets: tuple[int, ...], kept: int) -> int:
    """Return the smallest of the ascending ``buckets`` that holds ``kept`` tokens.

    :raises ValueError: When ``kept`` is not in 1 .. the last bucket; tokens are never dropped.
    """
    if not 1 <= kept <= buckets[-1]:
        raise ValueError(f'{kept} kept tokens, but 1 to {buckets[-1]} are possible')
    return buckets[bisect_left(buckets, kept)]
