"""LightVLA: two cameras, a prompt and the robot's state in, a chunk of actions out.

The sequence, with its position ids (P is the length of the prompt with BOS, Lv all visual tokens)::

    [BOS][patches 1..Lv][proprio][words of the prompt][7 x chunk slots of zeros][stop]
      0     1 .. Lv       Lv + 1    Lv + 2 .. Lv + P      Lv + P + 1 ..           last

Pruning takes patches out and changes no position id. Prompts of a batch are padded in front, so the
slots lie at the end for every one of them; padding is masked as a key, in the pruner, and takes no
position id. What stands here is inference and training of OpenVLA-OFT's ``modeling_prismatic.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightvla_ros.vla import pruner
from lightvla_ros.vla.ablation import Ablation
from lightvla_ros.vla.action_head import L1ActionHead, ProprioProjector
from lightvla_ros.vla.config import VLAConfig
from lightvla_ros.vla.language import LanguageModel, padding_bias
from lightvla_ros.vla.learned_queries import (
    DecoderQueries,
    EncoderQueries,
    text_to_patch_attention,
)
from lightvla_ros.vla.pruner import Selection
from lightvla_ros.vla.vision import Projector, VisionBackbone


@dataclass(frozen=True)
class Context:
    """All of the sequence but the patches, embedded.

    :param before: [B, 1, D], BOS.
    :param after: [B, A, D], proprio (if any), words, slots, stop.
    :param positions: int64 [B, A], of ``after``.
    :param mask: bool [B, A], of ``after``: False where a word is padding.
    :param words: Where in ``after`` the words stand.
    """

    before: Tensor
    after: Tensor
    positions: Tensor
    mask: Tensor
    words: slice


@dataclass(frozen=True)
class Output:
    """What a forward pass returns.

    :param actions: [B, chunk, 7], normalised.
    :param selection: What was kept and why; None with pruning off.
    """

    actions: Tensor
    selection: Selection | None


class LightVLA(nn.Module):
    """The whole model. ``train()`` and ``eval()`` choose the pruner's form, too."""

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

        :param pixels: [B, cameras, 6, H, W], preprocessed (``images.py``).
        :param prompt_ids: int64 [B, P]: BOS, words, 29871; padded in front.
        :param prompt_mask: bool [B, P], False where padding.
        :param proprio: [B, S], normalised; None for a model without proprio.
        :param alpha: Bound of the pruner's noise in training (``config.noise_bound``).
        :raises ValueError: When a shape does not fit the configuration.
        """
        self._check(pixels, prompt_ids, prompt_mask, proprio)
        context = self.embed_context(prompt_ids, prompt_mask, proprio)
        features = self.vision_backbone(pixels, self._film_input(context))
        method, selection = self.config.pruning.method, None
        if method == 'lightvla_star_encoder':
            selection = self.select(features, self.queries.scores(features), alpha)
            patches = self.projector(selection.tokens)
        else:
            patches = self.projector(features)
        if method == 'lightvla':
            scores = self.token_scores(patches, context)
            selection = self.select(patches, scores, alpha)
            patches = selection.tokens
        if method == 'lightvla_star_llm':
            states, selection = self._decode_star(patches, context, alpha)
        else:
            sequence = self._sequence(patches, context, selection)
            states = self.language_model.model(*sequence)
        return Output(self.act(states), selection)

    def embed_context(
        self, prompt_ids: Tensor, prompt_mask: Tensor, proprio: Tensor | None
    ) -> Context:
        """Embed everything but the patches."""
        config = self.config
        embed = self.language_model.model.embed_tokens
        batch, device = len(prompt_ids), prompt_ids.device
        # The first slot holds BOS or padding; every later one is a word if the one before is real.
        words, word_mask = embed(prompt_ids[:, 1:]), prompt_mask[:, :-1]
        last = prompt_mask.new_ones(batch, config.action_slots + 1)
        slots = words.new_zeros(batch, config.action_slots, words.shape[-1])
        stop = embed(torch.full((batch, 1), config.stop_id, device=device))
        parts, masks = [words, slots, stop], [word_mask, last]
        if proprio is not None:
            parts.insert(0, self.proprio_projector(proprio).to(words.dtype))
            masks.insert(0, last[:, :1])
        mask = torch.cat(masks, dim=1)
        positions = config.patches + mask.cumsum(1)  # padding repeats an id and is masked
        start = int(proprio is not None)
        bos = embed(torch.full((batch, 1), config.bos_id, device=device))
        return Context(
            before=bos,
            after=torch.cat(parts, dim=1),
            positions=positions,
            mask=mask,
            words=slice(start, start + words.shape[1]),
        )

    def token_scores(self, patches: Tensor, context: Context) -> Tensor:
        """Score the patches by the task: proprio, words and stop, without the zero slots."""
        end = -self.config.action_slots - 1
        task = torch.cat([context.after[:, :end], context.after[:, -1:]], dim=1)
        mask = torch.cat([context.mask[:, :end], context.mask[:, -1:]], dim=1)
        return pruner.token_scores(patches, task, mask, self.config.pruning.formula)

    def select(self, tokens: Tensor, scores: Tensor, alpha: float = 0.0) -> Selection:
        """Choose tokens by scores [B, queries, Lv], in the form of the present mode."""
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
        # slots. LightVLA's released inference reads [-56:], two positions late (LightVLA#26); its
        # checkpoints were trained with the former, so that is the default.
        count = self.config.action_slots
        if self.config.action_slice == 'training':
            states = states[:, -count - 2 : -2]
        else:
            states = states[:, -count:]
        return self.action_head(self.language_model.model.norm(states))

    def _sequence(
        self, patches: Tensor, context: Context, selection: Selection | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Put embeddings [B, N, D], position ids [B, N] and key mask [B, N] together."""
        batch, count = patches.shape[:2]
        before = context.positions.new_zeros(batch, 1)
        if selection is None:
            picks = torch.arange(count, device=patches.device).expand(batch, count)
        else:
            picks = selection.picks
        kept = None if selection is None else selection.mask
        if kept is None:
            kept = context.mask.new_ones(batch, count)
        x = torch.cat([context.before, patches.to(context.after.dtype), context.after], dim=1)
        positions = torch.cat([before, 1 + picks, context.positions], dim=1)
        mask = torch.cat([context.mask.new_ones(batch, 1), kept, context.mask], dim=1)
        return x, positions, mask

    def _decode_star(
        self, patches: Tensor, context: Context, alpha: float
    ) -> tuple[Tensor, Selection]:
        """Run the first layers with all patches, prune their states, run the rest."""
        llama, layer = self.language_model.model, self.config.pruning.layer
        x, positions, mask = self._sequence(patches, context, None)
        rotation, key_bias = llama.rotation(positions, x.dtype), padding_bias(mask, x.dtype)
        for block in llama.layers[:layer]:
            before, x = x, block(x, rotation, key_bias)
        visual = slice(1, 1 + self.config.patches)
        words = slice(visual.stop + context.words.start, visual.stop + context.words.stop)
        attention = text_to_patch_attention(
            llama.layers[layer - 1],
            before,
            rotation,
            key_bias,
            words,
            context.mask[:, context.words],
            visual,
        )
        states = x[:, visual]
        scores = self.queries.scores_with_text(states, attention)
        selection = self.select(states, scores, alpha)
        pruned = Context(
            x[:, :1], x[:, visual.stop :], context.positions, context.mask, context.words
        )
        x, positions, mask = self._sequence(selection.tokens, pruned, selection)
        return llama(x, positions, mask, first_layer=layer), selection

    def _film_input(self, context: Context) -> Tensor | None:
        """Mean embedding of BOS, words and stop [B, D]; None without FiLM."""
        if not self.config.film:
            return None
        text = torch.cat(
            [context.before, context.after[:, context.words], context.after[:, -1:]], dim=1
        )
        ones = context.mask.new_ones(len(text), 1)
        mask = torch.cat([ones, context.mask[:, context.words], ones], dim=1)[..., None]
        return (text * mask).sum(1) / mask.sum(1)

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
            raise ValueError(f'prompt_mask is {prompt_mask.dtype}; bool is taken')
        if (proprio is None) != (config.proprio_size == 0):
            raise ValueError(f'proprio: the model takes {config.proprio_size} numbers')
        if proprio is not None and tuple(proprio.shape) != (len(pixels), config.proprio_size):
            raise ValueError(
                f'proprio is {tuple(proprio.shape)}, the model takes '
                f'{(len(pixels), config.proprio_size)}'
            )
