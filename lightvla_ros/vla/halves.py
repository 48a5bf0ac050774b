"""The model's two halves in the form that engines take: static shapes, no NonZero, no embedding.

An unpruned sequence has 512 + 93 tokens; the length of a pruned one is not known beforehand. So
``encode`` sorts the kept tokens to the front and counts them, and ``act`` runs on as many of the
first tokens as the host chooses (``docs/explanation/engines.md``). ``engine/signature.py``
describes the tensors.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightvla_ros.vla.model import LightVLA


class EncodeHalf(nn.Module):
    """Images, embedded words and proprio -> visual tokens, kept ones first."""

    def __init__(self, model: LightVLA) -> None:
        super().__init__()
        self.model = model
        self.ends: Tensor
        self.register_buffer('ends', model.embed_ends().detach())  # the only embeddings in here

    def forward(
        self, pixels: Tensor, words: Tensor, word_mask: Tensor, proprio: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return ``tokens``, ``positions``, ``kept`` and ``context``."""
        model, config = self.model, self.model.config
        dtype = model.projector.fc1.weight.dtype
        if proprio is not None:
            proprio = proprio.to(dtype)
        context = model.embed_context(words.to(dtype), word_mask, proprio, self.ends)
        tokens, scores, context = model.candidates(pixels[None].to(dtype), context)
        index = torch.arange(config.patches, device=tokens.device)
        if scores is None:
            kept, order = torch.ones_like(index, dtype=torch.bool), index
        else:
            kept = (scores[0].argmax(-1)[:, None] == index).any(0)
            # Kept tokens first, both parts in their original order. All keys differ: no ties.
            key = torch.where(kept, config.patches - index, -index).float()
            order = key.topk(config.patches).indices
        counts = kept.to(torch.int32).view(config.cameras, -1).sum(1, dtype=torch.int32)
        tokens = model.project_chosen(tokens.index_select(1, order))
        return tokens, order[None], counts, context.tokens


class ActHalf(nn.Module):
    """The first tokens of ``encode`` -> a chunk."""

    def __init__(self, model: LightVLA) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, tokens: Tensor, positions: Tensor, kept: Tensor, context: Tensor, word_mask: Tensor
    ) -> Tensor:
        """Return ``actions``."""
        model = self.model
        places, mask = model.place_context(word_mask)
        is_kept = torch.arange(tokens.shape[1], device=tokens.device) < kept.sum()
        states = model.language_model.model(
            torch.cat([tokens, context], dim=1),
            torch.cat([1 + positions, places], dim=1),
            torch.cat([is_kept[None], mask], dim=1),
            first_layer=model.layers_before_pruning,
        )
        return model.act(states)[0].float()
