"""Optimizers' states for a checkpoint, of sharded weights too."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Optimizer


def optimizers_state(model: nn.Module, optimizers: list[Optimizer], parallel: str) -> Any:
    """Return the state of all optimizers; all processes must ask where weights are sharded."""
    if parallel != 'fsdp2':
        return [optimizer.state_dict() for optimizer in optimizers]
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_optimizer_state_dict,
    )

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return [get_optimizer_state_dict(model, each, options=options) for each in optimizers]


def load_optimizers(
    model: nn.Module, optimizers: list[Optimizer], state: Any, parallel: str
) -> None:
    """Put the states back; the inverse of :func:`optimizers_state`."""
    if parallel != 'fsdp2':
        for optimizer, each in zip(optimizers, state, strict=True):
            optimizer.load_state_dict(each)
        return
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        set_optimizer_state_dict,
    )

    options = StateDictOptions(full_state_dict=True)
    for optimizer, each in zip(optimizers, state, strict=True):
        set_optimizer_state_dict(model, optimizer, each, options=options)
