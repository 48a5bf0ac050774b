"""What each of two processes does in the tests of parallel training."""

import os

import torch
import train_rig

from lightvla_ros.train.config_file import from_dict
from lightvla_ros.train.data import Data, FrameStore
from lightvla_ros.train.parallel import join, leave, whole
from lightvla_ros.train.run import Run

STEPS = 2


def begin(folder, place, **changes):
    store = FrameStore([train_rig.frames()])
    data = Data(store, (store.rows(0),), (1.0,), store.rows(0)[:0])
    document = train_rig.document(
        'x',
        noise={'schedule': 'none'},
        alignment={'weight': 0.3, 'only_steps': 1},
        ema=0.9,
        optimizer={'lr': 1e-3, 'schedule': 'constant', 'clip_norm': 1.0},
        **changes,
    )
    return Run(from_dict(document), folder, place, data=data)


def gradients(run):
    """Of the alignment step and, after it, of the one with both losses."""
    found = []
    for _ in range(STEPS):
        run.add_gradients()
        found.append(
            {
                name: whole(weight.grad)
                for name, weight in run.model.named_parameters()
                if weight.grad is not None
            }
        )
        run.model.zero_grad()
        run.step += 1
    return found


def work(rank, port, folder):
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE='2',
        MASTER_ADDR='127.0.0.1',
        MASTER_PORT=str(port),
    )
    torch.set_num_threads(1)
    for parallel in ('ddp', 'fsdp2'):
        place = join(parallel)
        own = folder / f'{parallel}0'
        run = begin(own, place, parallel=parallel, batch_size=2)
        found = gradients(run)
        run.step = 0
        run.train_step()
        run.train_step()
        run.save()
        weights = run._trained()
        if rank == 0:
            torch.save(found, folder / f'{parallel}.pt')
            torch.save(weights, folder / f'{parallel}_weights.pt')
        torch.distributed.barrier()
        again = Run(run.config, own, place, resume=True, data=run.data)
        assert again.step == 2
        for step in (run.train_step, again.train_step):
            step()
        one, two = run._trained(), again._trained()
        assert all(torch.equal(value, two[name]) for name, value in one.items())
    leave()
