"""One pass through the model and its losses, as one module that DDP can wrap."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightvla_ros.errors import ConfigError
from lightvla_ros.train.alignment import NO_LABEL, Aligner
from lightvla_ros.train.token_teacher import TokenTeacher
from lightvla_ros.vla import pruner
from lightvla_ros.vla.model import Context, DecoderInput, LightVLA
from lightvla_ros.vla.pruner import in_fp32, rms


@dataclass(frozen=True)
class Batch:
    """Inputs and targets of one pass.

    :param pixels: float32 [B, cameras, 6, H, W].
    :param ids: int64 [B, P]; ``mask`` bool [B, P].
    :param proprio: float32 [B, S], normalised; None for a model without state.
    :param targets: float32 [B, chunk, 7], normalised.
    :param labels: int64 [B, Lv], classes of the patches (``alignment.patch_labels``), or None.
    :param places: float32 [B, Lv, 2], ``found`` bool [B, Lv]: positions of the patches' objects
        (``alignment.patch_places``), or None.
    :param plain: What ``pixels`` are without other colours, for the teacher of tokens; or None.
    """

    pixels: Tensor
    ids: Tensor
    mask: Tensor
    proprio: Tensor | None
    targets: Tensor
    labels: Tensor | None
    places: Tensor | None = None
    found: Tensor | None = None
    plain: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        return Batch(
            *(None if each is None else each.to(device) for each in self.__dict__.values())
        )


class Losses(nn.Module):
    """The model with its losses.

    :param aligner: None if alignment is neither trained nor measured.
    :param weight: Weight of the alignment loss relative to L1.
    :param where: Weight of the position error relative to the alignment loss.
    :param teacher: For the mode ``tokens``.
    :raises ConfigError: When the pruning method hides the projected patches.
    """

    def __init__(
        self,
        model: LightVLA,
        aligner: Aligner | None,
        weight: float,
        where: float = 0.0,
        teacher: TokenTeacher | None = None,
    ) -> None:
        super().__init__()
        self.model, self.aligner, self.weight, self.where = model, aligner, weight, where
        self.teacher = teacher
        method = model.config.pruning.method
        if aligner is not None and method not in ('off', 'lightvla'):
            raise ConfigError(f'alignment works only with pruning off or lightvla, not {method}')

    def forward(
        self, batch: Batch, alpha: float = 0.0, mode: str = 'both', *, measure: bool = False
    ) -> dict[str, Tensor]:
        """Return tensors by name.

        ``loss`` (to minimise), ``l1``, ``alignment`` (where used), ``picks`` (distinct kept tokens
        [B]). With ``measure`` also ``error`` [B, chunk, 7], ``kept`` bool [B, Lv], ``tied``
        [B], ``spread`` [B] (mean cosine between two queries), ``right`` (share of patches that
        alignment classifies correctly).

        :param mode: ``both``; ``alignment``: only the encoder, with the alignment loss; or
            ``tokens``: towers and projector, with the teacher's losses ``tokens`` and ``choice``
            (measured, it is ``both``).
        """
        model = self.model
        words = model.language_model.model.embed_tokens(batch.ids[:, 1:])
        context = model.embed_context(words, batch.mask[:, :-1], batch.proprio, model.embed_ends())
        found: dict[str, Tensor] = {}
        if mode == 'tokens' and not measure:
            return self.teacher(model, batch.pixels, batch.plain, context)
        if mode == 'alignment':
            features = model.vision_backbone(batch.pixels, model.film_input(context))
            patches = model.projector(features)
            found |= self._alignment(patches, batch, measure)
            found['loss'] = found['alignment'] + self.where * found.get('where', 0.0)
            if measure:
                found |= self._pruning(patches, context)
            return found
        encoded, patches = see(model, batch.pixels, context, alpha)
        actions = model.decode(encoded)
        error = (actions.float() - batch.targets).abs()
        found['l1'] = found['loss'] = error.mean()
        if encoded.selection is not None:
            found['picks'] = encoded.selection.kept.sum(1)
        if self.aligner is not None and batch.labels is not None and (self.weight or measure):
            found |= self._alignment(patches, batch, measure)
            if self.weight:
                found['loss'] = found['l1'] + self.weight * (
                    found['alignment'] + self.where * found.get('where', 0.0)
                )
        if measure:
            found['error'] = error
            if encoded.selection is not None:
                found['kept'] = encoded.selection.kept
                found['tied'] = encoded.selection.tied.sum(1)
            if model.config.pruning.method in ('off', 'lightvla'):
                found = self._pruning(patches, encoded.context) | found
        return found

    def _alignment(self, patches: Tensor, batch: Batch, measure: bool) -> dict[str, Tensor]:
        labels = batch.labels
        embeddings = self.model.language_model.model.embed_tokens.weight
        logits = self.aligner.logits(patches, embeddings)
        found = {'alignment': self.aligner.loss(logits, labels)}
        if batch.places is not None:
            found['where'] = self.aligner.where(patches, batch.places, batch.found, labels)
        if measure:
            labelled = labels != NO_LABEL
            right = (logits.argmax(-1) == labels) & labelled
            shown = labelled & (labels > 0)  # patches of objects; background is easy
            found['right'] = right.sum() / labelled.sum().clamp_min(1)
            found['right_objects'] = (right & shown).sum() / shown.sum().clamp_min(1)
        return found

    def _pruning(self, patches: Tensor, context: Context) -> dict[str, Tensor]:
        """Measure what LightVLA's pruner keeps, or would keep if pruning is off."""
        scores = self.model.token_scores(patches, context)
        return {
            'kept': pruner.kept_mask(scores),
            'tied': pruner.tied_queries(scores).sum(1),
            'spread': query_spread(self.model, patches, context),
        }


def see(
    model: LightVLA, pixels: Tensor, context: Context, alpha: float
) -> tuple[DecoderInput, Tensor]:
    """Do what ``LightVLA.encode`` does, and also return all candidates [B, Lv, ...]."""
    tokens, scores, context = model.candidates(pixels, context)
    return model.choose(tokens, scores, context, alpha), tokens


def query_spread(model: LightVLA, patches: Tensor, context: Context) -> Tensor:
    """Return the mean cosine between two different queries of eq. 1, [B]: 1 if all are equal."""
    # eq. 1 is repeated here because pruner.token_scores multiplies by 1 / sqrt(D), which for widths
    # such as 128 rounds differently and would change the last bits of the logged number
    task, mask = model.task(context)
    with in_fp32(patches):
        patches, task = patches.float(), task.float()
        if model.config.pruning.formula == 'published':
            patches, task = rms(patches), rms(task)
        scores = patches @ task.transpose(1, 2) / math.sqrt(patches.shape[-1])
        queries = scores.masked_fill(~mask[:, None], -torch.inf).softmax(-1) @ task
        total = F.normalize(queries, dim=-1).sum(1).square().sum(-1)  # over all pairs
        count = patches.shape[1]
        return (total - count) / (count * (count - 1))
