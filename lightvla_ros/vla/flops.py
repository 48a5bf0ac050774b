"""Counts the FLOPs of one chunk on the real modules, without any weights.

Matrix products and convolutions count 2 FLOPs per multiply-add, as in torch's counter; the paper's
8.8 TFLOP is this count (``docs/results/index.md``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

from lightvla_ros.errors import ConfigError
from lightvla_ros.vla.config import VLAConfig
from lightvla_ros.vla.model import LightVLA
from lightvla_ros.vla.pruner import token_scores

TERA = 1e12
COUNTED = ('lightvla', 'off')  # ways of pruning that `count_flops` knows


def count_flops(config: VLAConfig, kept: Sequence[int], text: int) -> list[dict[str, float]]:
    """Count each part for each number of kept tokens, in TFLOP.

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
    with torch.device('meta'):
        model = LightVLA(config).eval()
        width, size = config.language.width, config.image_size
        film = torch.empty(1, width) if config.film else None
        pixels = torch.empty(1, config.cameras, 6, size, size)
        towers = _count(lambda: model.vision_backbone(pixels, film))
        projector = _count(
            lambda: model.projector(torch.empty(1, config.patches, config.vision_width))
        )
        if proprio:
            projector += _count(
                lambda: model.proprio_projector(torch.empty(1, config.proprio_size))
            )
        patches, task = (
            torch.empty(1, config.patches, width),
            torch.empty(1, text - 1 + proprio, width),
        )
        pruner = _count(lambda: token_scores(patches, task))
        head = _count(lambda: model.action_head(torch.empty(1, config.action_slots, width)))
        rows = []
        for number in kept:
            length = number + text + proprio + config.action_slots
            x, positions = torch.empty(1, length, width), torch.empty(1, length)
            llm = _count(lambda x=x, p=positions: model.language_model.model(x, p))
            parts = {
                'towers': towers,
                'projector': projector,
                'pruner': 0 if number == config.patches else pruner,
                'llm': llm,
                'head': head,
            }
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
