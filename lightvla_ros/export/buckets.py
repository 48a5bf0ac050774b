"""Choice of the act graph's buckets: few sizes, with little padding for the counts that occur."""

from __future__ import annotations

import json
from bisect import bisect_left
from pathlib import Path

from lightvla_ros.errors import ExportError
from lightvla_ros.vla.config import VLAConfig, act_flops

SIZES = 64  # number of sizes that a bucket may have, evenly spaced: 8, 16, ... of 512 tokens
MOST = 6  # buckets; each is a profile and a CUDA graph
# Shares of all visual tokens, used without a histogram (64, 96, 128, 192, 256, 512 of 512)
LADDER = (1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2, 1)


def fit_buckets(
    histogram: dict[int, int], config: VLAConfig, context: int, most: int = MOST
) -> tuple[int, ...]:
    """Choose at most ``most`` buckets with the least expected FLOPs; the largest holds all tokens.

    The choice is exact, by dynamic programming over the allowed sizes.

    :param histogram: How often each number of kept tokens was seen.
    :raises ExportError: When a count is impossible or the histogram is empty.
    """
    patches = config.patches
    if not histogram or min(histogram.values()) < 0 or not sum(histogram.values()):
        raise ExportError('the histogram of kept tokens is empty; record one, or name the buckets')
    for kept in histogram:
        if not 1 <= kept <= patches:
            raise ExportError(
                f'the histogram counts {kept} kept tokens; only 1 to {patches} are possible'
            )
    step = max(1, patches // SIZES)
    sizes = [*range(max(2, step), patches, step), patches]  # the graph takes 2 or more
    weight = [0] * len(sizes)
    for kept, times in histogram.items():
        weight[bisect_left(sizes, kept)] += times
    cost = [act_flops(config, context, size) for size in sizes]
    total = [0]
    for each in weight:
        total.append(total[-1] + each)
    # best[i]: least FLOPs for all counts up to sizes[i] when the last bucket is sizes[i]
    best = [(total[i + 1] * cost[i], (size,)) for i, size in enumerate(sizes)]
    for _ in range(most - 1):
        best = [
            min(
                [best[i]]
                + [
                    (best[j][0] + (total[i + 1] - total[j + 1]) * cost[i], (*best[j][1], sizes[i]))
                    for j in range(i)
                ],
                key=lambda each: (each[0], len(each[1])),
            )
            for i in range(len(sizes))
        ]
    return best[-1][1]


def choose_buckets(
    text: str, histogram: Path | None, config: VLAConfig, context: int
) -> tuple[int, ...]:
    """Return the buckets that ``--buckets`` and ``--histogram`` specify.

    :param text: ``auto``, or comma-separated numbers; a bucket for all tokens is added.
    :param histogram: JSON: ``{"K": times}`` or a list of the counts that were seen.
    :raises ExportError: When an option is invalid or the histogram cannot be read.
    """
    patches = config.patches
    if text != 'auto':
        if histogram is not None:
            raise ExportError(f'--buckets {text} and --histogram exclude each other; give one')
        try:
            found = sorted({*map(int, text.split(',')), patches})
        except ValueError:
            raise ExportError(f"--buckets {text}: give 'auto' or numbers such as 64,96") from None
        if found[0] < 2 or found[-1] > patches:
            raise ExportError(f'--buckets {text}: each number must be from 2 to {patches}')
        return tuple(found)
    if histogram is None and config.fixed_kept is not None:
        return tuple(sorted({max(2, config.fixed_kept), patches}))
    if histogram is None:
        return tuple(sorted({max(2, round(patches * share)) for share in LADDER}))
    try:
        document = json.loads(histogram.read_text())
        if isinstance(document, list):
            document = {count: document.count(count) for count in set(document)}
        counts = {int(kept): int(times) for kept, times in document.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ExportError(
            f'--histogram {histogram}: {error}; give JSON such as {{"78": 12, "80": 3}}'
        ) from None
    return fit_buckets(counts, config, context)
