"""LightVLA: two cameras, a prompt and the robot's state in, a chunk of actions out.

The sequence, with its position ids (P is the length of the prompt with BOS, Lv all visual tokens)::

    [BOS][patches 1..Lv][proprio][words of the prompt][7 x chunk slots of zeros][stop]
      0     1 .. Lv       Lv + 1    Lv + 2 .. Lv + P      Lv + P + 1 ..           last

Pruning removes patches and changes no position id. Attention is bidirectional and gets the order
only from position ids, so in memory all patches come before the rest, the *context*.

Prompts are padded at the front, so the slots are at the same place for all prompts of a batch.
Padding is masked as a key and in the pruner, and takes no position id. This module follows
inference and training of OpenVLA-OFT's ``modeling_prismatic.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lightvla_ros.vla import pruner
from lightvla_ros.vla.config import VLAConfig
from lightvla_ros.vla.language import LanguageModel
from lightvla_ros.vla.layers import L1ActionHead, ProprioProjector, padding_bias
from lightvla_ros.vla.learned_queries import (
    DecoderQueries,
    EncoderQueries,
    text_to_patch_attention,
)
from lightvla_ros.vla.pruner import Ablation, Selection, merge_copies
from lightvla_ros.vla.training_free import RULES
from lightvla_ros.vla.vision import Projector, VisionBackbone


@dataclass(frozen=True)
class Context:
    """The sequence without the patches: BOS, proprio (if any), words, slots, stop.

    :param tokens: [B, C, D].
    :param positions: int64 [B, C].
    :param mask: bool [B, C], False for words that are padding.
    """

    tokens: Tensor
    positions: Tensor
    mask: Tensor


@dataclass(frozen=True)
class DecoderInput:
    """Input of the remaining decoder layers.

    :param tokens: [B, K, D], the visual tokens.
    :param picks: int64 [B, K], the patch index of each token.
    :param mask: bool [B, K], False for tokens that are not kept; None if all are kept.
    :param selection: The pruner's selection; None with pruning off.
    :param copies: float32 [B, K], how often each token counts (in training); None: once.
    """

    tokens: Tensor
    picks: Tensor
    mask: Tensor | None
    context: Context
    selection: Selection | None
    copies: Tensor | None = None


@dataclass(frozen=True)
class Output:
    """Result of a forward pass.

    :param actions: [B, chunk, 7], normalised.
    :param selection: The pruner's selection; None with pruning off.
    """

    actions: Tensor
    selection: Selection | None


class LightVLA(nn.Module):
    """The whole model. ``train()`` and ``eval()`` also choose the pruner's form."""

    def __init__(self, config: VLAConfig) -> None:
        super().__init__()
        self.config = config
        self.vision_backbone = VisionBackbone(config)
        self.projector = Projector(config)
        self.language_model = LanguageModel(config.language)
        self.action_head = L1ActionHead(config)
        if config.proprio_size:
            self.proprio_projector = ProprioProjector(config)
        pruning = config.pruning
        if pruning.method == 'lightvla_star_encoder':
            self.queries = EncoderQueries(pruning.queries, config.vision_width)
        elif pruning.method == 'lightvla_star_llm':
            self.queries = DecoderQueries(pruning.queries, config.language.width)
        self.ablation: Ablation | None = None  # see ablation.py
        self.counts_copies = True  # in training; see TrainConfig

    def forward(
        self,
        pixels: Tensor,
        prompt_ids: Tensor,
        prompt_mask: Tensor,
        proprio: Tensor | None = None,
        *,
        alpha: float = 0.0,
    ) -> Output:
        """Predict a chunk.

        :param pixels: [B, cameras, 6, H, W], preprocessed (``policy/preprocessor.py``).
        :param prompt_ids: int64 [B, P]: BOS, words, 29871; padded at the front.
        :param prompt_mask: bool [B, P], False for padding.
        :param proprio: [B, S], normalised; None for a model without proprio.
        :param alpha: Bound of the pruner's noise in training (``config.noise_bound``).
        :raises ValueError: When a shape does not fit the configuration.
        """
        self._check(pixels, prompt_ids, prompt_mask, proprio)
        # The first position is BOS or padding; a later one is a word if the one before is real.
        words = self.language_model.model.embed_tokens(prompt_ids[:, 1:])
        context = self.embed_context(words, prompt_mask[:, :-1], proprio, self.embed_ends())
        encoded = self.encode(pixels, context, alpha)
        return Output(self.decode(encoded), encoded.selection)

    def encode(self, pixels: Tensor, context: Context, alpha: float = 0.0) -> DecoderInput:
        """Compute and choose visual tokens: everything up to the point of pruning."""
        return self.choose(*self.candidates(pixels, context), alpha)

    def choose(
        self, tokens: Tensor, scores: Tensor | None, context: Context, alpha: float = 0.0
    ) -> DecoderInput:
        """Choose among the visual tokens that :meth:`candidates` returns."""
        if scores is None:
            batch, count = tokens.shape[:2]
            picks = torch.arange(count, device=tokens.device).expand(batch, count)
            return DecoderInput(tokens, picks, None, context, None)
        selection = self.select(tokens, scores, alpha)
        tokens = self.project_chosen(selection.tokens)
        if self.training:
            merged = merge_copies(tokens, selection)
            found = merged.copies > 0
            copies = merged.copies if self.counts_copies else None
            return DecoderInput(merged.tokens, merged.picks, found, context, selection, copies)
        return DecoderInput(tokens, selection.picks, selection.mask, context, selection)

    def decode(self, encoded: DecoderInput) -> Tensor:
        """Run the remaining decoder layers and the head -> [B, chunk, 7]."""
        kept, context = encoded.mask, encoded.context
        if kept is None:
            kept = torch.ones_like(encoded.picks, dtype=torch.bool)
        states = self.language_model.model(
            torch.cat([encoded.tokens, context.tokens], dim=1),
            torch.cat([1 + encoded.picks, context.positions], dim=1),
            torch.cat([kept, context.mask], dim=1),
            first_layer=self.layers_before_pruning,
            copies=encoded.copies,
        )
        return self.act(states)

    @property
    def layers_before_pruning(self) -> int:
        """Number of decoder layers that see all patches."""
        pruning = self.config.pruning
        return pruning.layer if pruning.method == 'lightvla_star_llm' else 0

    def embed_ends(self) -> Tensor:
        """Return the embeddings of BOS and stop: [2, D]."""
        embed = self.language_model.model.embed_tokens
        ids = (self.config.bos_id, self.config.stop_id)
        return embed(torch.tensor(ids, device=embed.weight.device))

    def embed_context(
        self, words: Tensor, word_mask: Tensor, proprio: Tensor | None, ends: Tensor
    ) -> Context:
        """Build the sequence without the patches.

        :param words: [B, P - 1, D], the embedded prompt without its first position.
        :param word_mask: bool [B, P - 1], False for padding, and for BOS if padding is before it.
        :param ends: [2, D], see :meth:`embed_ends`.
        """
        batch = len(words)
        bos, stop = ends[:, None, None].expand(-1, batch, 1, -1)
        slots = words.new_zeros(batch, self.config.action_slots, words.shape[-1])
        parts = [bos, words, slots, stop]
        if proprio is not None:
            parts.insert(1, self.proprio_projector(proprio).to(words.dtype))
        positions, mask = self.place_context(word_mask)
        return Context(torch.cat(parts, dim=1), positions, mask)

    def place_context(self, word_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return position ids int64 and mask bool, both [B, C], of the context's tokens."""
        config, batch = self.config, len(word_mask)
        front = word_mask.new_ones(batch, self.words.start)
        behind = word_mask.new_ones(batch, config.action_slots + 1)
        mask = torch.cat([front, word_mask, behind], dim=1)
        place = config.patches + torch.arange(mask.shape[1], device=mask.device)
        padding = (~word_mask).sum(1, keepdim=True)
        # padding is before the words: the positions of what follows decrease by its length
        fixed = place[: self.words.start].expand(batch, -1)
        positions = torch.cat([fixed, place[self.words.start :] - padding], dim=1)
        return positions * (place > config.patches), mask  # BOS is at 0

    @property
    def words(self) -> slice:
        """Positions of the words in the context."""
        return slice(1 + int(self.config.proprio_size > 0), -self.config.action_slots - 1)

    def candidates(self, pixels: Tensor, context: Context) -> tuple[Tensor, Tensor | None, Context]:
        """Compute the visual tokens and the scores by which a pruner chooses.

        :returns: All visual tokens [B, Lv, ...], their scores float32 [B, queries, Lv] (None with
            pruning off), and the context, after the decoder layers that run before pruning.
        """
        features = self.vision_backbone(pixels, self.film_input(context))
        method = self.config.pruning.method
        if method == 'lightvla_star_encoder':
            return features, self.queries.scores(features), context
        patches = self.projector(features).to(context.tokens.dtype)
        if method == 'lightvla':
            return patches, self.token_scores(patches, context), context
        if method == 'lightvla_star_llm':
            return self._first_layers(patches, context)
        if method in RULES:
            return patches, self._rule_scores(patches, context), context
        return patches, None, context

    def film_input(self, context: Context) -> Tensor | None:
        """Mean embedding of BOS, words and stop [B, D]; None without FiLM."""
        if not self.config.film:
            return None
        parts = (slice(0, 1), self.words, slice(-1, None))
        text = torch.cat([context.tokens[:, part] for part in parts], dim=1)
        mask = torch.cat([context.mask[:, part] for part in parts], dim=1)[..., None]
        return (text * mask).sum(1) / mask.sum(1)

    def project_chosen(self, tokens: Tensor) -> Tensor:
        """Project tokens that were chosen before the projector; return others unchanged."""
        if self.config.pruning.method == 'lightvla_star_encoder':
            return self.projector(tokens)
        return tokens

    def token_scores(self, patches: Tensor, context: Context) -> Tensor:
        """Score the patches by the task, float32 [B, queries, Lv]."""
        return pruner.token_scores(patches, *self.task(context), self.config.pruning.formula)

    def _rule_scores(self, patches: Tensor, context: Context) -> Tensor:
        """Give each patch that a training-free rule keeps a query of its own.

        So selection, batches and graphs are the same as for queries that choose.

        :returns: float32 [B, k, Lv], 1 where a query picks and 0 elsewhere.
        """
        rule, k = RULES[self.config.pruning.method], self.config.fixed_kept
        first, cameras = self.language_model.model.layers[0], self.config.cameras
        words, real = context.tokens[:, self.words], context.mask[:, self.words]
        each = zip(patches, words, real, strict=True)
        picks = torch.stack([rule(*one, first, cameras, k) for one in each])
        return (picks[..., None] == torch.arange(patches.shape[1], device=picks.device)).float()

    def task(self, context: Context) -> tuple[Tensor, Tensor]:
        """Return proprio, words and stop [B, Lt, D], without BOS and zero slots, and their mask."""
        end = -self.config.action_slots - 1
        return (
            torch.cat([context.tokens[:, 1:end], context.tokens[:, -1:]], dim=1),
            torch.cat([context.mask[:, 1:end], context.mask[:, -1:]], dim=1),
        )

    def select(self, tokens: Tensor, scores: Tensor, alpha: float = 0.0) -> Selection:
        """Choose tokens by scores [B, queries, Lv], for training or inference by the mode."""
        if self.training:
            return pruner.select_for_training(tokens, scores, alpha)
        if self.ablation is None:
            return pruner.select_for_inference(tokens, scores)
        if torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export():
            raise RuntimeError('an ablated model cannot be exported: leave `with ablated(...)`')
        return pruner.keep(tokens, scores, self.ablation(pruner.kept_mask(scores)))

    def act(self, states: Tensor) -> Tensor:
        """Read the actions from the last layer's states [B, N, D] -> [B, chunk, 7]."""
        # Training aligns slot i's action with the state *before* it, as next-token prediction does,
        # so the head reads the prompt's last token and all slots but the last: [-58:-2] for 56
        # slots. LightVLA's released inference reads [-56:], two positions late (LightVLA#26). Its
        # checkpoints were trained with the former, which is therefore the default.
        count = self.config.action_slots
        if self.config.action_slice == 'training':
            states = states[:, -count - 2 : -2]
        else:
            states = states[:, -count:]
        return self.action_head(self.language_model.model.norm(states))

    def _first_layers(self, patches: Tensor, context: Context) -> tuple[Tensor, Tensor, Context]:
        """Run the layers of LightVLA* that still see all patches, and score their states."""
        llama, layer = self.language_model.model, self.layers_before_pruning
        count = patches.shape[1]
        picks = torch.arange(count, device=patches.device).expand(patches.shape[:2])
        x = torch.cat([patches, context.tokens], dim=1)
        positions = torch.cat([1 + picks, context.positions], dim=1)
        mask = torch.cat([torch.ones_like(picks, dtype=torch.bool), context.mask], dim=1)
        rotation, key_bias = llama.rotation(positions, x.dtype), padding_bias(mask, x.dtype)
        for block in llama.layers[:layer]:
            before, x = x, block(x, rotation, key_bias)
        words = slice(count + self.words.start, x.shape[1] + self.words.stop)
        attention = text_to_patch_attention(
            llama.layers[layer - 1],
            before,
            rotation,
            key_bias,
            words,
            mask[:, words],
            slice(0, count),
        )
        states = x[:, :count]
        scores = self.queries.scores_with_text(states, attention)
        return states, scores, replace(context, tokens=x[:, count:])

    def _check(
        self, pixels: Tensor, prompt_ids: Tensor, prompt_mask: Tensor, proprio: Tensor | None
    ) -> None:
        config = self.config
        wanted = (len(pixels), config.cameras, 6, config.image_size, config.image_size)
        if tuple(pixels.shape) != wanted:
            raise ValueError(f'pixels are {tuple(pixels.shape)}, the model takes {wanted}')
        if prompt_ids.shape != prompt_mask.shape or len(prompt_ids) != len(pixels):
            raise ValueError(
                f'prompt_ids {tuple(prompt_ids.shape)}, prompt_mask {tuple(prompt_mask.shape)} '
                f'and a batch of {len(pixels)} images do not fit together'
            )
        if prompt_mask.dtype != torch.bool:
            raise ValueError(f'prompt_mask is {prompt_mask.dtype}; it must be bool')
        if (proprio is None) != (config.proprio_size == 0):
            raise ValueError(f'proprio: the model takes {config.proprio_size} numbers')
        if proprio is not None and tuple(proprio.shape) != (len(pixels), config.proprio_size):
            raise ValueError(
                f'proprio is {tuple(proprio.shape)}, the model takes '
                f'{(len(pixels), config.proprio_size)}'
            )
