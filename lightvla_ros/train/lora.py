"""LoRA on the model's linear layers, for a 7B model on a GPU. It needs the package peft."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lightvla_ros.errors import ConfigError
from lightvla_ros.train.config import LoraConfig
from lightvla_ros.vla.layers import L1ActionHead, ProprioProjector
from lightvla_ros.vla.model import LightVLA
from lightvla_ros.vla.weights import merged

ADAPTED = ('vision_backbone.', 'projector.', 'language_model.')
TRAINED_WHOLE = ('action_head.', 'proprio_projector.', 'queries.')
A, B = '.lora_A.default.weight', '.lora_B.default.weight'


def add_adapters(model: LightVLA, config: LoraConfig, autocast: bool) -> None:
    """Freeze a model, add adapters to its linear layers, and keep its heads fully trainable.

    As in the released finetune.py, all linear layers of towers, projector and decoder get adapters;
    head and proprio projector do not. Trained weights are fp32; the frozen weights keep their type.

    :raises ConfigError: When the frozen weights are not fp32 and ``autocast`` is off.
    """
    from peft import LoraConfig as Adapters
    from peft import inject_adapter_in_model

    number = model.projector.fc1.weight.dtype
    if number != torch.float32 and not autocast:
        raise ConfigError(f'lora: the initial weights are {number}; set autocast to true')
    targets = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(ADAPTED)
    ]
    inject_adapter_in_model(
        Adapters(
            r=config.rank,
            lora_alpha=config.alpha,
            lora_dropout=config.dropout,
            target_modules=targets,
            init_lora_weights='gaussian',
        ),
        model,
    )
    if config.reinitialise_heads:
        model.action_head = L1ActionHead(model.config)
        if model.config.proprio_size:
            model.proprio_projector = ProprioProjector(model.config)
    for name, weight in model.named_parameters():
        trained = name.startswith(TRAINED_WHOLE) or name.endswith((A, B))
        weight.requires_grad_(trained)
        if trained:
            weight.data = weight.data.float()


def merge_adapters(
    weights: Mapping[str, Tensor], trained: Mapping[str, Tensor], scale: float
) -> dict[str, Tensor]:
    """Return a model's weights with the trained adapters and heads.

    :param weights: All frozen weights, by ``LightVLA``'s names.
    :param trained: Adapters, and fully trained weights, which replace frozen ones.
    :param scale: alpha / rank.
    """
    found = {}
    for name, value in weights.items():
        layer = name.removesuffix('.weight')
        if layer + A in trained:
            delta = scale * (trained[layer + B].float() @ trained[layer + A].float())
            value = merged(value, delta)
        found[name] = trained.get(name, value)
    return found


def without_adapters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the frozen weights of a model with adapters, by ``LightVLA``'s names."""
    return {
        name.replace('.base_layer.', '.'): value
        for name, value in state.items()
        if '.lora_A.' not in name and '.lora_B.' not in name
    }
