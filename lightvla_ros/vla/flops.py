"""Counts the FLOPs of one chunk on the real modules, without any weights.

Matrix products and convolutions count 2 FLOPs per multiply-add, as in torch's counter; the paper's
8.8 TFLOP is this count (``docs/results/index.md``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from lightvla_ros.errors import ConfigError
from lightvla_ros.vla.config import VLAConfig
from lightvla_ros.vla.model import LightVLA

TERA = 1e12


def count_flops(config: VLAConfig, kept: Sequence[int], text: int) -> list[dict[str, float]]:
    """Count each part for each number of kept tokens, in TFLOP.

    LightVLA* chooses before the projector, which then works on the kept tokens alone, or behind
    some layers of the decoder, which count in ``llm`` with all tokens.

    :param kept: Numbers of visual tokens that reach the language model; all tokens means no
        pruning, where the pruner costs nothing.
    :param text: Number of text tokens: BOS, the prompt's words and stop.
    :returns: One row per number: ``kept``, ``sequence``, ``tflop``, ``towers``, ``projector``,
        ``pruner``, ``llm``, ``head``.
    :raises ConfigError: When a count is impossible.
    """
    for number in kept:
        if not 1 <= number <= config.patches:
            raise ConfigError(f'kept {number} is not in 1 to {config.patches}')
    if text < 2:
        raise ConfigError(f'text {text}: BOS and stop alone are 2')
    proprio = int(config.proprio_size > 0)
    with torch.device('meta'), torch.no_grad():
        model = LightVLA(config).eval()
        width, size = config.language.width, config.image_size
        film = torch.empty(1, width) if config.film else None
        pixels = torch.empty(1, config.cameras, 6, size, size)
        state = torch.empty(1, config.proprio_size) if proprio else None
        words, mask = torch.empty(1, text - 2, width), torch.ones(1, text - 2, dtype=torch.bool)
        context = model.embed_context(words, mask, state, torch.empty(2, width))

        @cache
        def project(number: int) -> int:
            features = torch.empty(1, number, config.vision_width)
            return _count(lambda: model.projector(features))

        @cache
        def decode(number: int) -> int:
            length = number + text + proprio + config.action_slots
            x, positions = torch.empty(1, length, width), torch.empty(1, length)
            return _count(lambda: model.language_model.model(x, positions))

        towers = _count(lambda: model.vision_backbone(pixels, film))
        proprio_projector = _count(lambda: model.proprio_projector(state)) if proprio else 0
        head = _count(lambda: model.action_head(torch.empty(1, config.action_slots, width)))
        # layers cost the same, so those before and behind the pruner are shares of all
        first, layers, whole = model.layers_before_pruning, config.language.layers, config.patches
        early = config.pruning.method == 'lightvla_star_encoder'
        before = towers + (0 if early else project(whole)) + first * decode(whole) // layers
        pruner = _count(lambda: model.candidates(pixels, context)) - before
        rows = []
        for number in kept:
            llm = first * decode(whole) + (layers - first) * decode(number)
            parts = {
                'towers': towers,
                'projector': project(number if early else whole) + proprio_projector,
                'pruner': 0 if number == whole else pruner,
                'llm': llm // layers,
                'head': head,
            }
            length = number + text + proprio + config.action_slots
            total = sum(parts.values())
            rows.append(
                {'kept': number, 'sequence': length, 'tflop': total / TERA}
                | {name: value / TERA for name, value in parts.items()}
            )
    return rows


def count_parameters(config: VLAConfig) -> int:
    """Return the number of the model's weights, all of which are trained."""
    with torch.device('meta'):
        return sum(each.numel() for each in LightVLA(config).parameters())


def _count(forward: Callable[[], object]) -> int:
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        forward()
    return counter.get_total_flops()
