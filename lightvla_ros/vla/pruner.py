"""LightVLA's pruner: each query picks the one token it scores highest; the union stays.

It has no parameters and no ratio. Every visual token asks a query of the task, eq. 1; the query
scores all visual tokens, eq. 2; argmax picks, eq. 3. Scores are always computed in fp32, whatever
the model runs in: in bf16 up to half of the rows pick another token, and in fp16 queries underflow
until all scores tie (``docs/explanation/pruning.md``).
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
    """What a pruner hands on.

    :param tokens: [B, K, D]. In training K is the number of queries, duplicates included; at
        inference with a batch of one, the kept tokens; in a larger batch all Lv, see ``mask``.
    :param picks: int64 [B, K], each token's patch index in 0 .. Lv - 1, which its position id
        follows: the language model reads space from position ids (paper 3.2.3).
    :param mask: bool [B, K], False where a token is not kept; None where all are.
    :param kept: bool [B, Lv], the union of the picks.
    :param tied: bool [B, queries], where a query's best score is shared by several tokens, so that
        the lowest index won by its position alone. Not zero: look at the precision.
    :param chosen: int64 [B, queries], the pick of each query.
    """

    tokens: Tensor
    picks: Tensor
    mask: Tensor | None
    kept: Tensor
    tied: Tensor
    chosen: Tensor

    def counts(self, cameras: int) -> Tensor:
        """Kept tokens of each camera, int64 [B, cameras]."""
        return self.kept.unflatten(1, (cameras, -1)).sum(-1)

    def tie_counts(self, cameras: int) -> Tensor:
        """Tied queries by the camera of the token they picked, int64 [B, cameras]."""
        camera = self.chosen // (self.kept.shape[1] // cameras)
        return (F.one_hot(camera, cameras) * self.tied[..., None]).sum(1)


def in_fp32(x: Tensor) -> AbstractContextManager:
    """Switch autocast off, where the tensor's device has it (meta has none)."""
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
    """How useful each query finds each visual token, in fp32.

    ``published``: S = rms(Q) rms(H)^T / sqrt(D) with Q = softmax(rms(H) rms(T)^T / sqrt(D)) rms(T),
    as released. ``paper``: eq. 1 and 2 as printed, the same without any rms.

    The released code has the 56 zero placeholders of the actions among T. They add mass to the
    softmax and nothing to its value, so all queries shrink by a factor each and no argmax changes;
    T is here without them, which also cannot underflow.

    :param patches: [B, Lv, D], H: all cameras, after the projector.
    :param task: [B, Lt, D], T: proprio, prompt and stop.
    :param task_mask: bool [B, Lt], False where ``task`` is padding.
    :returns: float32 [B, Lv, Lv]: of each query (rows), for each token (columns).
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
    """Return the union of what the queries pick, eq. 3.

    :param scores: [B, queries, Lv].
    :returns: bool [B, Lv]; 1 to Lv of each row are True.
    """
    kept = torch.zeros_like(scores[:, 0], dtype=torch.bool)
    return kept.scatter(1, scores.argmax(-1), True)


def select_for_training(tokens: Tensor, scores: Tensor, alpha: float) -> Selection:
    """One token per query with noise, differentiable straight through the softmax, eq. 4 to 8.

    S' = S + U(0, alpha); I = onehot(argmax S') + softmax(S') - stopgrad(softmax(S')); H' = I H with
    the raw H. Duplicates stay: attention sees a token as often as it was picked, as released.

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
    """Keep the tokens of a mask bool [B, Lv]: cut for a batch of one, masked for more."""
    batch, count, width = tokens.shape
    chosen, tied = scores.argmax(-1), tied_queries(scores)
    if batch == 1:
        picks = kept[0].nonzero()[:, 0]
        return Selection(tokens[:, picks], picks[None], None, kept, tied, chosen)
    picks = torch.arange(count, device=tokens.device).expand(batch, count)
    return Selection(tokens, picks, kept, kept, tied, chosen)


def tied_queries(scores: Tensor) -> Tensor:
    """Tell whether a query's best score [B, queries, Lv] is shared -> bool [B, queries]."""
    return (scores == scores.amax(-1, keepdim=True)).sum(-1) > 1


@dataclass(frozen=True)
class Merged:
    """Different tokens, each once with the number of its copies: the same results, cheaper.

    In training every query puts the token that it picked into the sequence, so the decoder sees a
    token as often as it was picked (:func:`select_for_training`). Copies have one content and one
    position id, so they stay equal through all layers, and n equal keys in a softmax are one key
    whose score is larger by log n. Gradients agree, too: the mean of the copies hands each of them
    its share. A batch is as long as its largest number of different tokens, where the copies would
    take as many as there are queries.

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
