"""Pruning rules for a model that was trained with every visual token.

Each follows the cited rule, and keeps a number of patches that does not depend on the picture. A
rule reads the decoder's input alone, so it can be exported in front of the decoder. All are written
for one observation, and run on the meta device, where their FLOPs are counted.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lightvla_ros.vla.language import LlamaBlock
from lightvla_ros.vla.pruner import in_fp32

ADP_SHARE = 0.4  # of k for the third-person view, the rest for the wrist's
PIVOTS = 4  # of DART among the patches, and as many among the words

# (patches [Lv, D], words [P, D], real bool [P], first layer, cameras, k) -> kept patches int64 [k],
# ascending. Patches and words are at the decoder's input; words that are not real are padding.
Rule = Callable[[Tensor, Tensor, Tensor, LlamaBlock, int, int], Tensor]


def adp(
    patches: Tensor, words: Tensor, real: Tensor, first: LlamaBlock, cameras: int, k: int
) -> Tensor:
    """ADP (VLA-ADP) without its gate by the arm's motion: text queries on patch keys, by camera.

    Both are the first layer's projections without position; each camera keeps its share of k,
    4 : 6 for two cameras (at most all its patches), else equal.
    """
    norm, attention = first.input_layernorm, first.self_attn
    keys, queries = attention.keys(norm(patches)), attention.queries(norm(words))
    with in_fp32(patches):
        query = (queries.float() * real[:, None]).sum(0) / real.sum()
        scores = (keys.float() @ query[:, None])[:, 0]
    per_camera = len(patches) // cameras
    picks = [
        camera * per_camera + best(scores[camera * per_camera :][:per_camera], count)
        for camera, count in enumerate(_by_camera(k, cameras, per_camera))
    ]
    return torch.cat(picks)


def _by_camera(k: int, cameras: int, per_camera: int) -> list[int]:
    if cameras != 2:
        return [len(part) for part in split(k, cameras)]
    first = max(round(k * ADP_SHARE), k - per_camera)
    return [first, k - first]


def dart(
    patches: Tensor, words: Tensor, real: Tensor, first: LlamaBlock, cameras: int, k: int
) -> Tensor:
    """DART (2502.11494) on the decoder's input: pivots, and what is least similar to each.

    Pivots are the patches and words of the largest L1 norm. Each pivot in turn adds the patches of
    the lowest cosine to it among those not yet kept; all add nearly equally many.
    """
    del first, cameras  # other rules read them
    patches, words = patches.float(), words.float()
    own = min(PIVOTS, k)
    largest = patches.abs().sum(1).topk(own).indices
    kept = torch.zeros_like(patches[:, 0], dtype=torch.bool).index_fill(0, largest, True)
    norms = words.abs().sum(1).masked_fill(~real, -1)
    pivots = torch.cat([patches[largest], words[norms.topk(min(PIVOTS, len(words))).indices]])
    for pivot, part in zip(pivots, split(k - own, len(pivots)), strict=True):
        if len(part):
            distance = -F.cosine_similarity(pivot[None], patches)
            more = distance.masked_fill(kept, -torch.inf).topk(len(part)).indices
            kept = kept.index_fill(0, more, True)
    return best(kept.float(), k)


def best(scores: Tensor, k: int) -> Tensor:
    """Return the places of the k highest of scores [n], ascending: int64 [k]."""
    return scores.topk(k).indices.sort().values


def split(k: int, parts: int) -> list[np.ndarray]:
    """Return 0 .. k - 1 in parts of nearly equal size."""
    return np.array_split(np.arange(k), parts)


RULES: dict[str, Rule] = {'adp': adp, 'dart': dart}
