"""LightVLA's pruner: each query picks the token that it scores highest; the union is kept.

It has no parameters and no ratio. Every visual token gives a query made from the task, eq. 1; the
query scores all visual tokens, eq. 2; argmax picks one, eq. 3. Scores are always computed in fp32,
whatever the model's precision: in bf16 up to half of the queries pick another token, and in fp16
queries underflow until all scores tie (``docs/explanation/pruning.md``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-6

Ablation = Callable[[Tensor], Tensor]  # kept bool [B, Lv] -> another


@dataclass(frozen=True)
class Selection:
    """Result of a pruner.

    :param tokens: [B, K, D]. In training K is the number of queries, with duplicates. At inference
        K is the number of kept tokens for a batch of one, and Lv for a larger batch, see ``mask``.
    :param picks: int64 [B, K], each token's patch index in 0 .. Lv - 1, from which its position id
        follows: the language model gets positions in space from position ids (paper 3.2.3).
    :param mask: bool [B, K], False for tokens that are not kept; None if all are kept.
    :param kept: bool [B, Lv], the union of the picks.
    :param tied: bool [B, queries], True if several tokens share a query's best score, so that the
        lowest index was picked. Any True value suggests that the precision is too low.
    :param chosen: int64 [B, queries], the pick of each query.
    """

    tokens: Tensor
    picks: Tensor
    mask: Tensor | None
    kept: Tensor
    tied: Tensor
    chosen: Tensor

    def counts(self, cameras: int) -> Tensor:
        """Return the number of kept tokens per camera, int64 [B, cameras]."""
        return self.kept.unflatten(1, (cameras, -1)).sum(-1)

    def tie_counts(self, cameras: int) -> Tensor:
        """Return the number of tied queries by the camera of their pick, int64 [B, cameras]."""
        camera = self.chosen // (self.kept.shape[1] // cameras)
        return (F.one_hot(camera, cameras) * self.tied[..., None]).sum(1)


def in_fp32(x: Tensor) -> AbstractContextManager:
    """Switch autocast off if the tensor's device has it (the meta device does not)."""
    device = x.device.type
    if not torch.amp.is_autocast_available(device):
        return nullcontext()
    return torch.autocast(device, enabled=False)


def rms(x: Tensor) -> Tensor:
    """Divide by the root mean square of the last axis; no learned gain (modeling_prismatic.py)."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS)


def token_scores(
    patches: Tensor, task: Tensor, task_mask: Tensor | None = None, formula: str = 'published'
) -> Tensor:
    """Return each query's score of each visual token, in fp32.

    ``published``: S = rms(Q) rms(H)^T / sqrt(D) with Q = softmax(rms(H) rms(T)^T / sqrt(D)) rms(T),
    as released. ``paper``: eq. 1 and 2 as printed, the same without any rms.

    In the released code T includes the 56 zero placeholders of the actions. They take a part of the
    softmax and add nothing to its result, so each query is scaled by a factor and no argmax
    changes. Here T does not include them, so queries cannot underflow for this reason.

    :param patches: [B, Lv, D], H: all cameras, after the projector.
    :param task: [B, Lt, D], T: proprio, prompt and stop.
    :param task_mask: bool [B, Lt], False for padding in ``task``.
    :returns: float32 [B, Lv, Lv]: one row per query, one column per token.
    """
    with in_fp32(patches):
        patches, task = patches.float(), task.float()
        scale = 1 / math.sqrt(patches.shape[-1])
        norm = rms if formula == 'published' else (lambda x: x)
        patches, task = norm(patches), norm(task)
        attention = patches @ task.transpose(1, 2) * scale  # [B, Lv, Lt]
        if task_mask is not None:
            attention = attention.masked_fill(~task_mask[:, None], -torch.inf)
        queries = norm(attention.softmax(-1) @ task)  # [B, Lv, D]
        return queries @ patches.transpose(1, 2) * scale


def kept_mask(scores: Tensor) -> Tensor:
    """Return the union of the queries' picks, eq. 3.

    :param scores: [B, queries, Lv].
    :returns: bool [B, Lv]; at least one per row is True.
    """
    kept = torch.zeros_like(scores[:, 0], dtype=torch.bool)
    return kept.scatter(1, scores.argmax(-1), True)


def select_for_training(tokens: Tensor, scores: Tensor, alpha: float) -> Selection:
    """Pick one token per query with noise, with a straight-through softmax gradient, eq. 4 to 8.

    S' = S + U(0, alpha); I = onehot(argmax S') + softmax(S') - stopgrad(softmax(S')); H' = I H with
    the raw H. Duplicates are kept, as in the released code: attention sees a token as often as it
    was picked.

    :param tokens: [B, Lv, D], H.
    :param scores: float32 [B, queries, Lv], S.
    :param alpha: Upper bound of the noise.
    """
    if alpha:
        scores = scores + alpha * torch.rand_like(scores)
    chosen = scores.argmax(-1)
    with in_fp32(tokens):
        soft = scores.softmax(-1)
        hard = F.one_hot(chosen, scores.shape[-1]).to(soft.dtype)
        indicator = hard + soft - soft.detach()
        picked = (indicator @ tokens.float()).to(tokens.dtype)
    return Selection(picked, chosen, None, kept_mask(scores), tied_queries(scores), chosen)


def select_for_inference(tokens: Tensor, scores: Tensor) -> Selection:
    """Keep the union of the picks, in its original order; no noise."""
    return keep(tokens, scores, kept_mask(scores))


def keep(tokens: Tensor, scores: Tensor, kept: Tensor) -> Selection:
    """Keep the tokens of a mask bool [B, Lv]; a batch of one is cut, a larger one is masked."""
    batch, count, width = tokens.shape
    chosen, tied = scores.argmax(-1), tied_queries(scores)
    if batch == 1:
        picks = kept[0].nonzero()[:, 0]
        return Selection(tokens[:, picks], picks[None], None, kept, tied, chosen)
    picks = torch.arange(count, device=tokens.device).expand(batch, count)
    return Selection(tokens, picks, kept, kept, tied, chosen)


def tied_queries(scores: Tensor) -> Tensor:
    """Return which queries of scores [B, queries, Lv] share their best score: bool [B, queries]."""
    return (scores == scores.amax(-1, keepdim=True)).sum(-1) > 1


@dataclass(frozen=True)
class Merged:
    """Distinct tokens with the numbers of their copies: the same results at a lower cost.

    In training every query puts the token that it picked into the sequence, so the decoder sees a
    token as often as it was picked (:func:`select_for_training`). Copies have the same content and
    position id, so they stay equal through all layers, and n equal keys in a softmax equal one key
    whose score is larger by log n. Gradients are equal, too: the mean over the copies gives each
    copy its share. The sequence has as many tokens as the largest number of distinct tokens in the
    batch, instead of as many as there are queries.

    :param tokens: [B, K, D]; K is the largest number of distinct tokens in the batch.
    :param picks: int64 [B, K], the patch index of each token.
    :param copies: float32 [B, K], how often each token was picked; 0 for empty places.
    """

    tokens: Tensor
    picks: Tensor
    copies: Tensor


def merge_copies(tokens: Tensor, selection: Selection) -> Merged:
    """Merge the duplicates of a selection that was made for training.

    :param tokens: [B, queries, D], the selection's tokens, projected if needed.
    """
    kept = selection.kept
    place = kept.cumsum(1) - 1  # index of each patch among the kept ones
    most = int(place.amax()) + 1
    with in_fp32(tokens):
        belongs = F.one_hot(place.gather(1, selection.chosen), most).float()  # [B, queries, K]
        copies = belongs.sum(1)
        share = belongs / copies.clamp_min(1)[:, None]
        merged = share.transpose(1, 2) @ tokens.float()
    patches = torch.arange(kept.shape[1], device=kept.device)
    # each kept patch goes to its place; all others go to one extra place, which is cut off
    places = torch.where(kept, place, most)
    picks = patches.new_zeros(len(kept), most + 1).scatter(1, places, patches.expand_as(places))
    return Merged(merged.to(tokens.dtype), picks[:, :most], copies)
