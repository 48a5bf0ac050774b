"""SP-VLA's pruning half (2506.12723): contours, and what SigLIP attends to."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from lightvla_ros.vla.compared.choices import Seen, best
from lightvla_ros.vla.compared.pictures import cells, whole_numbers

CANNY = 100, 200  # the two thresholds of its code


def sp_vla(seen: Seen, k: int) -> Tensor:
    """Keep the patches with a contour, and fill up with those that SigLIP attends to most.

    Its code unites all patches with a contour and the most attended ones, as many of these as have
    a share of the attention that falls with the arm's speed. Here the union has k patches at any
    speed; if more have a contour, the most attended of them are kept. Attention is the mean over
    heads and queries in the last block that is run, the last but one of the checkpoint.
    """
    assert seen.pictures is not None
    tower = seen.model.vision_backbone.fused_featurizer
    scores = seen.pictures.siglip_attention(tower.blocks[-1].attn.heads, tower.prefix)
    # a score is below 1, so that every contour comes first; in float64 adding 1 keeps the order
    first = contours(seen.pictures.rgb, seen.model.config.patch_size)
    return best(scores.double() + first, k)


def contours(rgb: Tensor, patch: int) -> Tensor:
    """Return which patches have a pixel on a contour (Canny): bool [Lv].

    :param rgb: [cameras, 3, H, W] in 0 to 255. On the meta device nothing is found.
    """
    edges = torch.zeros_like(rgb[:, :1], dtype=torch.bool)
    if not rgb.is_meta:
        grey = [cv2.cvtColor(each, cv2.COLOR_RGB2GRAY) for each in whole_numbers(rgb).cpu().numpy()]
        found = np.stack([cv2.Canny(each, *CANNY) for each in grey])[:, None] > 0
        edges = torch.from_numpy(found).to(rgb.device)
    return cells(edges, patch).any(2).flatten()
