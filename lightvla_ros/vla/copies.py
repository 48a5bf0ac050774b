"""Duplicates of a visual token as one token that counts several times: the same numbers, cheaper.

In training every query puts the token that it picked into the sequence, so the decoder sees a token
as often as it was picked (``pruner.select_for_training``). Copies have one content and one position
id, so they stay equal through all layers, and n equal keys in a softmax are one key whose score is
larger by log n. Gradients agree, too: the mean of the copies hands each of them its share. A batch
is as long as its largest number of different tokens, where the copies would take as many as there
are queries.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lightvla_ros.vla.pruner import Selection, in_fp32


@dataclass(frozen=True)
class Merged:
    """Different tokens, each once.

    :param tokens: [B, K, D], K the largest number of different tokens of the batch.
    :param picks: int64 [B, K], the patch of each.
    :param copies: float32 [B, K], how often each was picked; 0 where there is none.
    """

    tokens: Tensor
    picks: Tensor
    copies: Tensor


def merge_copies(tokens: Tensor, selection: Selection) -> Merged:
    """Merge the duplicates of a selection that was made for training.

    :param tokens: [B, queries, D], the selection's tokens (or what became of them).
    """
    kept = selection.kept
    place = kept.cumsum(1) - 1  # of each patch among the kept ones
    most = int(place.amax()) + 1
    with in_fp32(tokens):
        belongs = F.one_hot(place.gather(1, selection.chosen), most).float()  # [B, queries, K]
        copies = belongs.sum(1)
        share = belongs / copies.clamp_min(1)[:, None]
        merged = share.transpose(1, 2) @ tokens.float()
    patches = torch.arange(kept.shape[1], device=kept.device)
    # each kept patch to its place; what is not kept goes to one place too many, which is cut off
    places = torch.where(kept, place, most)
    picks = patches.new_zeros(len(kept), most + 1).scatter(1, places, patches.expand_as(places))
    return Merged(merged.to(tokens.dtype), picks[:, :most], copies)
