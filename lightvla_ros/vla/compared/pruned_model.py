"""The model with a compared method instead of its own pruner, which the model does not know of."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lightvla_ros.errors import ConfigError
from lightvla_ros.vla.compared import choices, recycling, vla_cache
from lightvla_ros.vla.compared.action_reuse import is_stable
from lightvla_ros.vla.compared.choices import Choice, Seen
from lightvla_ros.vla.compared.memory import Memory
from lightvla_ros.vla.compared.pictures import Pictures, look
from lightvla_ros.vla.compared.sequence import whole_sequence
from lightvla_ros.vla.compared.sp_vla import sp_vla
from lightvla_ros.vla.layers import padding_bias
from lightvla_ros.vla.model import Context, LightVLA

BEFORE = {  # these choose from the decoder's input
    'adp': choices.adp,
    'dart': choices.dart,
    'topk': choices.topk,
    'random': choices.random,
    'fixed': choices.fixed,
    'sp-vla': sp_vla,
}
BEHIND = {  # these choose behind the first tenth of the layers (3 of 32), and at least one
    'fastv-stop': choices.fastv_stop,
    'sparsevlm': choices.sparsevlm,
    'flashvla': choices.flashvla,
    'flashvla-reuse': choices.flashvla,  # and chunks are given again, see action_reuse.py
}
# these read the attention of the slots, which are zeros before the first layer, so that its
# attention is the same for all patches: at least two layers
BY_SLOTS = {'fastv-slots': choices.fastv_slots, 'vla-pruner': choices.vla_pruner}
METHODS: dict[str, Choice] = BEFORE | BEHIND | BY_SLOTS
# These run the decoder themselves: (model, patches [1, Lv, D], context, pictures, k, memory) ->
# normalised actions [1, chunk, 7] and the kept patches int64, ascending; -1, at the end, for
# tokens that are no patch.
Decode = Callable[[LightVLA, Tensor, Context, Pictures | None, int, Memory], tuple[Tensor, Tensor]]
DECODERS: dict[str, Decode] = {
    'sparsevlm-recycled': recycling.decode,
    'vla-cache': vla_cache.decode,
}


def pruning_layer(name: str, layers: int) -> int:
    """Return how many decoder layers see all patches with a method."""
    if name in BEFORE:
        return 0
    return max(2 if name in BY_SLOTS else 1, round(layers * 3 / 32))


class ComparedModel:
    """Runs the model's parts in their order, and removes patches before one decoder layer.

    A removed patch is in no later layer, so it cannot reach the action there. Kept patches keep
    their position ids. Only for a batch of one, in eval mode.

    :param name: A name of ``METHODS`` or ``DECODERS``.
    :param k: Number of kept patches, all cameras together; with ``vla-cache`` the largest number
        of static patches of each camera.
    :raises ConfigError: When the method or the number is impossible, or the model is LightVLA* or
        has too few layers.
    """

    def __init__(self, model: LightVLA, name: str, k: int) -> None:
        names = (*METHODS, *DECODERS)
        if name not in names:
            raise ConfigError(f'there is no method {name!r}; choose {", ".join(names)}')
        most = model.config.patches_per_camera if name == 'vla-cache' else model.config.patches
        if not 1 <= k <= most:
            what = 'static patches of a camera' if name == 'vla-cache' else 'kept patches'
            raise ConfigError(f'{name}:{k}: {what} are 1 to {most}')
        if model.config.pruning.method.startswith('lightvla_star'):
            raise ConfigError(f'{name}: a LightVLA* model has queries of its own; use its base')
        self.model = model
        self.k = k
        self._choose = METHODS.get(name)
        self._decode = DECODERS.get(name)
        self._reuses = name == 'flashvla-reuse'
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
        :returns: Normalised actions [1, chunk, 7], and the kept patches int64 [K], ascending: none
            if the last chunk is given again; -1, at the end, for tokens that are no patch.
        """
        memory = self._memory
        if self._reuses and is_stable(memory.computed):
            memory.computed = memory.computed[-1:]
            actions, picks = memory.computed[0]
            return actions, picks[:0]
        features, pictures = look(self.model, pixels, self.model.film_input(context))
        patches = self.model.projector(features).to(context.tokens.dtype)
        found = self.decode(patches, context, pictures)
        memory.chunk += 1
        if self._reuses:
            memory.computed = [*memory.computed[-1:], found]
        return found

    def decode(
        self, patches: Tensor, context: Context, pictures: Pictures | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run the decoder and the head on all patches [1, Lv, D], and prune on the way."""
        if self._decode is not None:
            return self._decode(self.model, patches, context, pictures, self.k, self._memory)
        assert self._choose is not None
        llama, count = self.model.language_model.model, patches.shape[1]
        picks = torch.arange(count, device=patches.device)
        x, positions, mask = whole_sequence(patches, context)
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
                    pictures,
                )
                picks = self._choose(seen, self.k)
                rest = torch.arange(count, x.shape[1], device=x.device)
                left = torch.cat([picks, rest])
                x, positions, mask = x[:, left], positions[:, left], mask[:, left]
                rotation = llama.rotation(positions, x.dtype)
                key_bias = padding_bias(mask, x.dtype)
            before, x = x, block(x, rotation, key_bias)
        return self.model.act(x), picks
