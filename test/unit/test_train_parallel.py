"""Two processes compute the gradients that one computes on the same frames, and go on alike."""

import socket

import pytest
import torch
from train_processes import begin, gradients, work

from lightvla_ros.errors import TrainError
from lightvla_ros.train.parallel import Process, join


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
    alone = begin(tmp_path / 'run', Process(0, 1, torch.device('cpu')), batch_size=4)
    for theirs, ours in zip(torch.load(found / f'{parallel}.pt'), gradients(alone), strict=True):
        for name, value in ours.items():
            torch.testing.assert_close(theirs[name], value, atol=1e-6, rtol=1e-4, msg=name)
    alone.step = 0
    alone.train_step()
    alone.train_step()
    weights = torch.load(found / f'{parallel}_weights.pt')
    for name, value in alone._trained().items():
        # Adam divides by the gradient's size: where that is nothing, rounding decides the sign
        torch.testing.assert_close(weights[name], value, atol=4e-3, rtol=0, msg=name)


def test_several_processes_are_torchruns(monkeypatch):
    monkeypatch.delenv('RANK', raising=False)
    with pytest.raises(TrainError, match='parallel: ddp must be started with torchrun'):
        join('ddp')
