"""The model with a compared method instead of its own pruner, which the model does not know of."""

from __future__ import annotations

import torch
from torch import Tensor

from lightvla_ros.errors import ConfigError
from lightvla_ros.vla.compared import choices
from lightvla_ros.vla.compared.choices import Choice, Memory, Seen
from lightvla_ros.vla.layers import padding_bias
from lightvla_ros.vla.model import Context, LightVLA

BEFORE = {  # these choose from the decoder's input
    'adp': choices.adp,
    'dart': choices.dart,
    'topk': choices.topk,
    'random': choices.random,
    'fixed': choices.fixed,
}
BEHIND = {  # these choose behind the first tenth of the layers (3 of 32), and at least one
    'fastv-stop': choices.fastv_stop,
    'sparsevlm': choices.sparsevlm,
    'flashvla': choices.flashvla,
}
# these read the attention of the slots, which are zeros before the first layer, so that its
# attention is the same for all patches: at least two layers
BY_SLOTS = {'fastv-slots': choices.fastv_slots, 'vla-pruner': choices.vla_pruner}
METHODS: dict[str, Choice] = BEFORE | BEHIND | BY_SLOTS


def pruning_layer(name: str, layers: int) -> int:
    """Return how many decoder layers see all patches with a method."""
    if name in BEFORE:
        return 0
    return max(2 if name in BY_SLOTS else 1, round(layers * 3 / 32))


class ComparedModel:
    """Runs the model's parts in their order, and removes patches before one decoder layer.

    A removed patch is in no later layer, so it cannot reach the action there. Kept patches keep
    their position ids. Only for a batch of one, in eval mode.

    :param name: A name of ``METHODS``.
    :param k: Number of kept patches, all cameras together.
    :raises ConfigError: When the method or the number is impossible, or the model is LightVLA* or
        has too few layers.
    """

    def __init__(self, model: LightVLA, name: str, k: int) -> None:
        if name not in METHODS:
            raise ConfigError(f'there is no method {name!r}; choose {", ".join(METHODS)}')
        if not 1 <= k <= model.config.patches:
            raise ConfigError(f'{name}:{k}: kept patches are 1 to {model.config.patches}')
        if model.config.pruning.method not in ('off', 'lightvla'):
            raise ConfigError(f'{name}: a LightVLA* model has queries of its own; use its base')
        self.model = model
        self.k = k
        self._choose = METHODS[name]
        self.layer = pruning_layer(name, model.config.language.layers)
        if self.layer >= model.config.language.layers:
            raise ConfigError(f'{name} prunes behind layer {self.layer}, which is the last')
        self._memory = Memory()

    def start_episode(self, *seed: int) -> None:
        """Forget the earlier chunks; also needed when the instruction changes.

        :param seed: Seed of the random draws; its first number alone seeds ``fixed``.
        """
        self._memory = Memory(seed or (0,))

    def __call__(self, pixels: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Predict a chunk.

        :param pixels: [1, cameras, 6, H, W].
        :returns: Normalised actions [1, chunk, 7], and the kept patches int64 [K], ascending.
        """
        model = self.model
        features = model.vision_backbone(pixels, model.film_input(context))
        patches = model.projector(features).to(context.tokens.dtype)
        found = self.decode(patches, context)
        self._memory.chunk += 1
        return found

    def decode(self, patches: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Run the decoder and the head on all patches [1, Lv, D], and prune on the way."""
        llama, count = self.model.language_model.model, patches.shape[1]
        picks = torch.arange(count, device=patches.device)
        x = torch.cat([patches, context.tokens], dim=1)
        positions = torch.cat([1 + picks[None], context.positions], dim=1)
        mask = torch.cat([torch.ones_like(picks, dtype=torch.bool)[None], context.mask], dim=1)
        rotation, key_bias = llama.rotation(positions, x.dtype), padding_bias(mask, x.dtype)
        before = x
        for index, block in enumerate(llama.layers):
            if index == self.layer:
                last = llama.layers[max(index - 1, 0)]
                seen = Seen(
                    self.model,
                    patches[0],
                    context,
                    last,
                    before,
                    x,
                    rotation,
                    key_bias,
                    self._memory,
                )
                picks = self._choose(seen, self.k)
                rest = torch.arange(count, x.shape[1], device=x.device)
                left = torch.cat([picks, rest])
                x, positions, mask = x[:, left], positions[:, left], mask[:, left]
                rotation = llama.rotation(positions, x.dtype)
                key_bias = padding_bias(mask, x.dtype)
            before, x = x, block(x, rotation, key_bias)
        return self.model.act(x), picks
