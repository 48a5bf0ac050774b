"""Layers of the untrained network, run one at a time."""

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto

from lightvla_ros.export.graph_builder import GraphBuilder
from lightvla_ros.export.graph_layers import Weights, llama_block

HIDDEN = np.random.default_rng(0).standard_normal((1, 6, 16)).astype(np.float32)
POSITIONS = np.array([[0, 3, 4, 9, 20, 21]])


@pytest.fixture(scope='module')
def block():
    g = GraphBuilder('block')
    hidden = g.input('hidden', TensorProto.FLOAT, [1, 6, 16])
    position = g.input('position', TensorProto.INT64, [1, 6])
    mask = g.input('mask', TensorProto.FLOAT, [1, 1, 1, 6])
    out = llama_block(g, Weights(0), hidden, position, mask, width=16, heads=2)
    g.output('out', out, TensorProto.FLOAT, [1, 6, 16])
    session = ort.InferenceSession(g.build().SerializeToString())

    def run(positions, hidden=HIDDEN, masked=()):
        mask = np.zeros((1, 1, 1, 6), np.float32)
        mask[..., list(masked)] = -3e4
        return session.run(None, {'hidden': hidden, 'position': positions, 'mask': mask})[0]

    return run


def test_only_distances_between_positions_matter(block):
    before = block(POSITIONS)
    np.testing.assert_allclose(block(POSITIONS + 100), before, atol=1e-4)
    assert np.abs(block(POSITIONS * 2) - before).max() > 1e-2


def test_every_token_sees_every_token_that_is_not_masked(block):
    changed = HIDDEN.copy()
    changed[0, 5] += 1
    assert np.abs(block(POSITIONS, changed) - block(POSITIONS))[0, :5].max(axis=1).min() > 1e-3
    np.testing.assert_array_equal(
        block(POSITIONS, changed, masked=[5])[0, :5], block(POSITIONS, masked=[5])[0, :5]
    )
