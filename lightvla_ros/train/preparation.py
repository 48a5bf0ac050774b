"""A model made ready for training: what is trained, and which blocks are recomputed or compiled."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint as recomputed

from lightvla_ros.errors import ConfigError
from lightvla_ros.train.config import TrainConfig
from lightvla_ros.train.lora import add_adapters
from lightvla_ros.vla.language import LlamaBlock
from lightvla_ros.vla.model import LightVLA
from lightvla_ros.vla.vision import Block

VISUAL_TOKENS = ('vision_backbone.', 'projector.')  # what makes them
# What neither makes the visual tokens nor chooses among them
BEHIND_THE_CHOICE = ('language_model.model.layers.', 'language_model.model.norm.', 'action_head.')


def choose_trained(model: LightVLA, config: TrainConfig) -> None:
    """Add adapters to a frozen model (LoRA), or freeze a part of it; otherwise all is trained.

    It also says how often the decoder counts a token that was picked several times.

    :raises ConfigError: When the adapters do not fit the type of the weights, or when the pruning
        method does not fit what is frozen.
    """
    method = model.config.pruning.method
    if config.freeze_tokens and method not in ('off', 'lightvla'):
        raise ConfigError(f'freeze_tokens: works only with pruning off or lightvla, not {method}')
    if config.learn == 'tokens' and method != 'lightvla':
        raise ConfigError(f'learn: tokens works only with pruning lightvla, not {method}')
    if config.lora is not None:
        torch.manual_seed(config.seed)
        add_adapters(model, config.lora, config.autocast)
    if config.freeze_towers:
        model.vision_backbone.requires_grad_(False)
    trained: tuple[str, ...] = ('',)  # every name starts so
    if config.freeze_tokens:
        trained = BEHIND_THE_CHOICE
    elif config.learn == 'tokens':
        trained = VISUAL_TOKENS
    for name, weight in model.named_parameters():
        if not name.startswith(trained):
            weight.requires_grad_(False)
    model.counts_copies = config.copies == 'counted'


def blocks(model: nn.Module) -> list[Block | LlamaBlock]:
    """Return the blocks of towers and decoder."""
    return [each for each in model.modules() if isinstance(each, Block | LlamaBlock)]


def prepare_blocks(model: nn.Module, config: TrainConfig) -> None:
    """Make each block of towers and decoder recomputed or compiled; weights keep their names."""
    for block in blocks(model):
        if config.gradient_checkpointing:
            block.forward = _recomputing(block.forward)
        if config.compile:
            block.compile()


def _recomputing(forward: Any) -> Any:
    def run(*arguments: Any) -> Any:
        return recomputed(forward, *arguments, use_reentrant=False)

    return run
