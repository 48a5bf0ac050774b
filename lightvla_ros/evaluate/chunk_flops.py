"""FLOPs of an evaluation's chunks, by the number of visual tokens that each chunk kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lightvla_ros.contract import Manifest
from lightvla_ros.evaluate.compared_engine import parse_prune

if TYPE_CHECKING:
    from lightvla_ros.vla.config import VLAConfig


def chunk_flops(manifest: Manifest, kept: list[int], prune: str | None = None) -> dict[str, Any]:
    """Return the mean TFLOP of a chunk, of an unpruned one, and their ratio.

    :param kept: Kept visual tokens of every chunk, all cameras together.
    :param prune: A compared method, ``NAME:K``, that kept them.
    :returns: ``tflop``, ``tflop_unpruned``, ``ratio`` and ``chunks``, and with ``prune``
        ``authors``, the ratio as its authors count; or ``skipped``, which says why they were not
        counted.
    """
    if not kept:
        return {'skipped': 'no chunk'}
    if manifest.model is None:
        return {'skipped': 'the policy folder holds only graphs, not the model they were made of'}
    try:
        from lightvla_ros.vla.flops import count_flops
        from lightvla_ros.vla.weights import config_of
    except ModuleNotFoundError as error:
        return {'skipped': f"{error}; pip install 'lightvla_ros[train]'"}
    config = config_of(manifest)
    if prune is not None:
        return _compared_flops(config, manifest.prompt.length + 1, kept, *parse_prune(prune))
    pruned = np.array([number for number in kept if number < config.patches], dtype=float)
    # FLOPs are exactly quadratic in the number of tokens (attention), and counting takes half a
    # second, so three counts determine the curve. A chunk of all tokens is counted separately,
    # because it has no pruner.
    low, high = (int(pruned.min()), int(pruned.max())) if len(pruned) else (1, 1)
    points = sorted({low, (low + high) // 2, high})
    text = manifest.prompt.length + 1  # the prompt's length counts BOS and not stop
    *rows, whole = (row['tflop'] for row in count_flops(config, [*points, config.patches], text))
    total = whole * (len(kept) - len(pruned))
    if len(pruned):
        middle = np.mean(points)
        curve = np.polyfit(points - middle, rows, len(points) - 1)
        total += np.polyval(curve, pruned - middle).sum()
    mean = float(total) / len(kept)
    return {
        'tflop': mean,
        'tflop_unpruned': whole,
        'ratio': round(mean / whole, 4),
        'chunks': len(kept),
    }


def _compared_flops(
    config: VLAConfig, text: int, kept: list[int], name: str, k: int
) -> dict[str, Any]:
    from lightvla_ros.vla.compared.flops import count_as_authors, count_compared
    from lightvla_ros.vla.flops import count_flops

    whole = count_flops(config, [config.patches], text)[0]['tflop']
    if name == 'vla-cache':  # k is not the number of the computed patches, which varies
        numbers = sorted({min(kept), max(kept)})
        pruned = [count_compared(config, name, number, text) for number in numbers]
        authors = [count_as_authors(config, name, number, text) for number in numbers]
        # all counts are linear in the number
        mean, counted = (
            float(np.interp(np.mean(kept), numbers, each)) for each in (pruned, authors)
        )
    else:
        # a chunk without any patch is the last one given again, which costs nothing
        again = sum(number == 0 for number in kept) if name == 'flashvla-reuse' else 0
        all_ = sum(number == config.patches for number in kept) / len(kept)
        few = 1 - all_ - again / len(kept)
        mean = few * count_compared(config, name, k, text) + all_ * whole
        counted = few * count_as_authors(config, name, k, text)
        counted += all_ * count_as_authors(config, name, config.patches, text)
    return {
        'tflop': mean,
        'tflop_unpruned': whole,
        'ratio': round(mean / whole, 4),
        'authors': round(counted / count_as_authors(config, name, config.patches, text), 4),
        'chunks': len(kept),
    }


def merged_flops(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Merge the counts of several results."""
    counted = [part for part in parts if part.get('skipped') != 'no chunk']
    for part in counted:
        if 'skipped' in part:
            return part
    if not counted:
        return {'skipped': 'no chunk'}
    chunks = sum(part['chunks'] for part in counted)
    mean = sum(part['tflop'] * part['chunks'] for part in counted) / chunks
    whole = counted[0]['tflop_unpruned']
    return {
        'tflop': mean,
        'tflop_unpruned': whole,
        'ratio': round(mean / whole, 4),
        'chunks': chunks,
    }
