"""Training in one process, or in several with torchrun: DDP, or FSDP2 for the largest models."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from lightvla_ros.errors import TrainError
from lightvla_ros.train.losses import Losses
from lightvla_ros.train.preparation import blocks


@dataclass(frozen=True)
class Process:
    """Rank of this process, number of processes, and device."""

    rank: int
    world: int
    device: torch.device


def join(parallel: str) -> Process:
    """Join the group of processes, unless ``parallel`` is ``none``.

    :raises TrainError: When this process was not started by torchrun.
    """
    if parallel == 'none':
        return Process(0, 1, torch.device('cuda' if torch.cuda.is_available() else 'cpu'))
    if 'RANK' not in os.environ:
        raise TrainError(
            f'parallel: {parallel} must be started with torchrun: '
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
    """Leave the group of processes, if there is one, together with the others.

    A process that ends by an error does not wait; torchrun then ends the others. The wait also
    gives gloo's threads the time to let go of their tensors: one that does so while Python ends
    aborts the process (https://github.com/pytorch/pytorch/issues/190489).
    """
    if not distributed.is_initialized():
        return
    if sys.exc_info()[0] is None:
        distributed.barrier()
    distributed.destroy_process_group()


def spread(losses: Losses, parallel: str, process: Process) -> nn.Module:
    """Wrap a model for several processes; this may replace its weight objects."""
    if parallel == 'ddp':
        ids = [process.device] if process.device.type == 'cuda' else None
        # the decoder in alignment steps, and frozen parts, get no gradients
        return DistributedDataParallel(losses, device_ids=ids, find_unused_parameters=True)
    if parallel == 'fsdp2':
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(process.device.type, (process.world,))
        for block in blocks(losses):
            fully_shard(block, mesh=mesh)
        fully_shard(losses, mesh=mesh)
    return losses


def gathering(module: nn.Module, last: bool) -> AbstractContextManager:
    """With DDP, exchange gradients only in the last backward pass of a step."""
    if isinstance(module, DistributedDataParallel) and not last:
        return module.no_sync()
    return nullcontext()


def any_of_all(wish: bool, process: Process) -> bool:
    """Return whether ``wish`` is true in any process, so that all act alike at the same step."""
    if process.world == 1:
        return wish
    wishes = torch.tensor(int(wish), device=process.device)
    distributed.all_reduce(wishes, distributed.ReduceOp.MAX)
    return bool(wishes)


def whole(value: Tensor) -> Tensor:
    """Return a whole tensor on the CPU; all processes must call it if the tensor is sharded."""
    if hasattr(value, 'full_tensor'):
        value = value.full_tensor()
    return value.detach().cpu()


def assign(target: Tensor, value: Tensor) -> None:
    """Copy a whole tensor into one that may be sharded."""
    if hasattr(target, 'full_tensor'):
        from torch.distributed.tensor import distribute_tensor

        value = distribute_tensor(value.to(target.device), target.device_mesh, target.placements)
    target.copy_(value)
