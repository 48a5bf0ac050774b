"""The layers of the untrained network, as parts of an ONNX graph."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from lightvla_ros.export.graph_builder import GraphBuilder

FLOAT = TensorProto.FLOAT


class Weights:
    """Seeded random weights, drawn in the order in which they are asked for."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def __call__(self, *shape: int, scale: float = 1.0) -> np.ndarray:
        """float32 of the given shape; matrices keep the size of what they multiply."""
        fan_in = shape[-2] if len(shape) > 1 else 1
        return (self._random.standard_normal(shape) * scale / np.sqrt(fan_in)).astype(np.float32)


def llama_block(
    g: GraphBuilder,
    weights: Weights,
    hidden: str,
    position: str,
    mask: str,
    *,
    width: int,
    heads: int,
) -> str:
    """One decoder block of LLaMA, but bidirectional: [1, N, width] -> the same shape."""
    size = width // heads
    x = rms(g, hidden)
    query, key, value = (
        _split_heads(g, g.op('MatMul', x, weights(width, width)), heads, size) for _ in 'qkv'
    )
    query, key = _rope(g, query, position, size), _rope(g, key, position, size)
    attended = g.op('Transpose', attention(g, query, key, value, size, mask), perm=[0, 2, 1, 3])
    attended = g.op('Reshape', attended, [1, -1, width])
    hidden = g.op('Add', hidden, g.op('MatMul', attended, weights(width, width)))
    x = rms(g, hidden)
    gate = g.op('MatMul', x, weights(width, 2 * width))
    gate = g.op('Mul', gate, g.op('Sigmoid', gate))
    x = g.op('Mul', gate, g.op('MatMul', x, weights(width, 2 * width)))
    return g.op('Add', hidden, g.op('MatMul', x, weights(2 * width, width)))


def attention(
    g: GraphBuilder, query: str, key: str, value: str, size: int, mask: str | None = None
) -> str:
    """Attend without any causal mask; the last two axes are tokens and channels."""
    axes = [0, 1, 3, 2] if mask else [0, 2, 1]
    scores = g.op('MatMul', query, g.op('Transpose', key, perm=axes))
    scores = g.op('Mul', scores, np.float32(1 / np.sqrt(size)))
    if mask:
        scores = g.op('Add', scores, mask)
    return g.op('MatMul', g.op('Softmax', scores, axis=-1), value)


def _rope(g: GraphBuilder, x: str, position: str, size: int) -> str:
    """Rotary embedding at the given positions; angles in fp32."""
    half = size // 2
    frequency = (10000.0 ** (-np.arange(half) / half)).astype(np.float32)
    angle = g.op('Mul', g.op('Unsqueeze', g.op('Cast', position, to=FLOAT), [1, 3]), frequency)
    cos, sin = g.op('Cos', angle), g.op('Sin', angle)
    low = g.op('Slice', x, [0], [half], [3])
    high = g.op('Slice', x, [half], [2 * half], [3])
    return g.op(
        'Concat',
        g.op('Sub', g.op('Mul', low, cos), g.op('Mul', high, sin)),
        g.op('Add', g.op('Mul', high, cos), g.op('Mul', low, sin)),
        axis=3,
    )


def _split_heads(g: GraphBuilder, x: str, heads: int, size: int) -> str:
    return g.op('Transpose', g.op('Reshape', x, [1, -1, heads, size]), perm=[0, 2, 1, 3])


def mlp(
    g: GraphBuilder, weights: Weights, x: str, inputs: int, outputs: int, scale: float = 1.0
) -> str:
    """Two layers with a GELU between them, on the last axis: ``inputs`` -> ``outputs``."""
    hidden = 64
    x = g.op('Gelu', g.op('MatMul', x, weights(inputs, hidden)))
    return g.op('MatMul', x, weights(hidden, outputs, scale=scale))


def rms(g: GraphBuilder, x: str) -> str:
    """Divide by the root mean square of the last axis; no learned gain."""
    mean = g.op('ReduceMean', g.op('Mul', x, x), [-1], keepdims=1)
    return g.op('Div', x, g.op('Sqrt', g.op('Add', mean, np.float32(1e-6))))
