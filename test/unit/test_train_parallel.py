"""Two processes compute the gradients that one computes on the same frames."""

import os
import socket

import pytest
import torch
import train_rig

from lightvla_ros.train.config import from_dict
from lightvla_ros.train.errors import TrainError
from lightvla_ros.train.frames import Data, FrameStore
from lightvla_ros.train.parallel import Place, join, leave, whole
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
        run = begin(folder / f'{parallel}{rank}', place, parallel=parallel, batch_size=2)
        found = gradients(run)
        if rank == 0:
            torch.save(found, folder / f'{parallel}.pt')
        run.step = 0
        run.train_step()
        run.step = 3
        run.save()
        before = run._trained()
        if rank == 0:
            torch.save(before, folder / f'{parallel}_weights.pt')
        # each rank keeps a folder of its own here, with the checkpoint of rank 0
        own = folder / f'{parallel}0'
        torch.distributed.barrier()
        again = Run(run.config, own, place, resume=True, data=run.data)
        again_weights = again._trained()
        assert all(torch.equal(value, again_weights[name]) for name, value in before.items())
        assert again.step == 3
        again.train_step()
    leave()


@pytest.fixture(scope='module')
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp('parallel')
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(work, (port, folder), nprocs=2)
    return folder


@pytest.mark.parametrize('parallel', ['ddp', 'fsdp2'])
def test_gradients_are_those_of_one_process(found, parallel, tmp_path):
    alone = begin(tmp_path / 'run', Place(0, 1, torch.device('cpu')), batch_size=4)
    for theirs, ours in zip(torch.load(found / f'{parallel}.pt'), gradients(alone), strict=True):
        for name, value in ours.items():
            torch.testing.assert_close(theirs[name], value, atol=1e-6, rtol=1e-4, msg=name)
    alone.step = 0
    alone.train_step()
    weights = torch.load(found / f'{parallel}_weights.pt')
    for name, value in alone._trained().items():
        torch.testing.assert_close(weights[name], value, atol=2e-3, rtol=0, msg=name)


def test_several_processes_are_torchruns(monkeypatch):
    monkeypatch.delenv('RANK', raising=False)
    with pytest.raises(TrainError, match='parallel: ddp is started by torchrun'):
        join('ddp')
