"""Muon: what its updates look like."""

import pytest
import torch

from lightvla_ros.train.optim import Muon, orthogonal


@pytest.mark.parametrize('shape', [(24, 24), (64, 16), (16, 64), (3, 16, 32)])
def test_singular_values_come_near_one(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape) * 100
    found = torch.linalg.svdvals(orthogonal(matrix))
    assert found.min() > 0.3
    assert found.max() < 1.3


def test_an_update_has_the_size_of_the_rate():
    weight = torch.nn.Parameter(torch.zeros(32, 8))
    weight.grad = torch.randn(32, 8) * 1e-6
    Muon([weight], lr=0.01, decay=0.0).step()
    # AdamW's first step changes each number by the rate; this one by 0.2 of it in the mean square
    assert weight.detach().square().mean().sqrt().item() == pytest.approx(0.01 * 0.2, rel=0.3)


def test_weights_without_gradient_stay():
    weight = torch.nn.Parameter(torch.ones(4, 4))
    Muon([weight], lr=0.1, decay=0.5).step()
    assert torch.equal(weight, torch.ones(4, 4))
