"""One process or several: torchrun's, with DDP, or FSDP2 where a model does not fit one GPU."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from lightvla_ros.errors import TrainError
from lightvla_ros.train.losses import Losses
from lightvla_ros.vla.language import LlamaBlock
from lightvla_ros.vla.vision import Block


@dataclass(frozen=True)
class Process:
    """Which of how many processes this is, and what it computes on."""

    rank: int
    world: int
    device: torch.device


def join(parallel: str) -> Process:
    """Join the other processes, if there shall be any.

    :raises TrainError: When torchrun has not started this one.
    """
    if parallel == 'none':
        return Process(0, 1, torch.device('cuda' if torch.cuda.is_available() else 'cpu'))
    if 'RANK' not in os.environ:
        raise TrainError(
            f'parallel: {parallel} is started by torchrun: '
            'torchrun --nproc-per-node N -m lightvla_ros.cli train --config FILE'
        )
    device = torch.device('cpu')
    if torch.cuda.is_available():
        device = torch.device('cuda', int(os.environ['LOCAL_RANK']))
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        distributed.init_process_group('nccl' if device.type == 'cuda' else 'gloo')
    return Process(distributed.get_rank(), distributed.get_world_size(), device)


def leave() -> None:
    """Leave the group of processes, if there is one."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def spread(losses: Losses, parallel: str, process: Process) -> nn.Module:
    """Wrap a model for several processes; its weights may be other objects afterwards."""
    if parallel == 'ddp':
        ids = [process.device] if process.device.type == 'cuda' else None
        # the alignment steps leave the decoder out, as do frozen parts
        return DistributedDataParallel(losses, device_ids=ids, find_unused_parameters=True)
    if parallel == 'fsdp2':
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(process.device.type, (process.world,))
        for module in losses.modules():
            if isinstance(module, Block | LlamaBlock):
                fully_shard(module, mesh=mesh)
        fully_shard(losses, mesh=mesh)
    return losses


def gathering(module: nn.Module, last: bool) -> AbstractContextManager:
    """Exchange gradients in the last backward pass of a step only, where DDP can."""
    if isinstance(module, DistributedDataParallel) and not last:
        return module.no_sync()
    return nullcontext()


def any_of_all(wish: bool, process: Process) -> bool:
    """Tell whether any process wishes something, so that all do the same at the same step."""
    if process.world == 1:
        return wish
    wishes = torch.tensor(int(wish), device=process.device)
    distributed.all_reduce(wishes, distributed.ReduceOp.MAX)
    return bool(wishes)


def whole(value: Tensor) -> Tensor:
    """Return all of a tensor on the CPU; of a sharded one, all processes must ask."""
    if hasattr(value, 'full_tensor'):
        value = value.full_tensor()
    return value.detach().cpu()


def assign(target: Tensor, value: Tensor) -> None:
    """Copy a whole tensor into one that may be sharded."""
    if hasattr(target, 'full_tensor'):
        from torch.distributed.tensor import distribute_tensor

        value = distribute_tensor(value.to(target.device), target.device_mesh, target.placements)
    target.copy_(value)
