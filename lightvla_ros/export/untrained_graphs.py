"""A LightVLA-shaped network with untrained weights, as the two ONNX graphs of an engine.

It has every part that a real one has (two towers, projector, proprio, parameter-free pruner,
bidirectional LLaMA blocks with original position ids, L1 head) at a size that runs anywhere. It
says nothing about how well a policy works; it lets everything around a policy be tested.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from lightvla_ros.export.graph_builder import GraphBuilder
from lightvla_ros.export.graph_layers import Weights, attention, llama_block, mlp, rms

FLOAT, INT64, INT32, BOOL = (
    TensorProto.FLOAT,
    TensorProto.INT64,
    TensorProto.INT32,
    TensorProto.BOOL,
)
BOS = 1
MASKED = np.float32(-3e4)  # added to a key's score: exp() of it is exactly 0, in fp16 too


@dataclass(frozen=True)
class Shape:
    """Sizes of the network."""

    cameras: int = 2
    image: int = 128
    patch: int = 16
    towers: int = 2
    tower_width: int = 32
    width: int = 64
    heads: int = 4
    layers: int = 2
    vocabulary: int = 512
    prompt: int = 192
    proprio: int = 8
    chunk: int = 8

    @property
    def grid(self) -> int:
        """Patches along a side of an image."""
        return self.image // self.patch

    @property
    def tokens(self) -> int:
        """Visual tokens of all cameras."""
        return self.cameras * self.grid**2

    @property
    def words(self) -> int:
        """Positions of the prompt without BOS."""
        return self.prompt - 1

    @property
    def slots(self) -> int:
        """Placeholders of the actions."""
        return 7 * self.chunk

    @property
    def context(self) -> int:
        """Tokens of the sequence besides the visual ones: BOS, proprio, words, slots, stop."""
        return 1 + 1 + self.words + self.slots + 1


def encode_graph(
    shape: Shape, weights: Weights, stop_embedding: np.ndarray
) -> tuple[onnx.ModelProto, np.ndarray]:
    """Images, words and proprio -> visual tokens with the kept ones first.

    :returns: The graph, and the table of embeddings that ``words`` come from.
    """
    g = GraphBuilder('encode')
    s = shape
    pixels = g.input('pixels', FLOAT, [s.cameras, 3 * s.towers, s.image, s.image])
    words = g.input('words', FLOAT, [1, s.words, s.width])
    word_mask = g.input('word_mask', BOOL, [1, s.words])
    proprio = g.input('proprio', FLOAT, [1, s.proprio])

    # [cameras, patches, towers * tower_width]; both cameras run as one batch
    towers = [_tower(g, s, weights, pixels, index) for index in range(s.towers)]
    features = g.op('Concat', *towers, axis=-1)
    features = g.op('Reshape', features, [1, s.tokens, s.towers * s.tower_width])
    patches = mlp(g, weights, features, s.towers * s.tower_width, s.width)  # [1, Lv, D]

    state = g.op('Reshape', mlp(g, weights, proprio, s.proprio, s.width), [1, 1, s.width])
    embedding = weights(s.vocabulary, s.width, scale=np.sqrt(s.vocabulary))
    bos = embedding[None, BOS : BOS + 1]
    slots = np.zeros((1, s.slots, s.width), np.float32)
    context = g.op('Concat', bos, state, words, slots, stop_embedding, axis=1)

    kept = _pruner(g, s, patches, state, words, word_mask, stop_embedding)  # bool [Lv]
    # Kept first, both parts in their original order: distinct keys, so TopK has no ties to break.
    index = np.arange(s.tokens, dtype=np.float32)
    key = g.op('Where', kept, s.tokens - index, -index)
    _, order = g.op('TopK', key, [s.tokens], axis=0, outputs=2)
    tokens = g.op('Gather', patches, order, axis=1)
    positions = g.op('Unsqueeze', order, [0])
    counts = g.op('Reshape', g.op('Cast', kept, to=INT32), [s.cameras, s.grid**2])
    counts = g.op('ReduceSum', counts, [1], keepdims=0)

    g.output('tokens', tokens, FLOAT, [1, s.tokens, s.width])
    g.output('positions', positions, INT64, [1, s.tokens])
    g.output('kept', counts, INT32, [s.cameras])
    g.output('context', context, FLOAT, [1, s.context, s.width])
    return g.build(), embedding


def act_graph(shape: Shape, weights: Weights) -> onnx.ModelProto:
    """[bucket of visual tokens | BOS | proprio | words | 56 zeros | stop] -> a chunk of actions.

    The order in the sequence is free, because attention is bidirectional and positions are
    explicit: BOS 0, patches 1 .. Lv, proprio Lv + 1, words from Lv + 2, then the action slots.
    """
    g = GraphBuilder('act')
    s = shape
    tokens = g.input('tokens', FLOAT, [1, 'bucket', s.width])
    patch_index = g.input('positions', INT64, [1, 'bucket'])
    kept = g.input('kept', INT32, [s.cameras])
    context = g.input('context', FLOAT, [1, s.context, s.width])
    word_mask = g.input('word_mask', BOOL, [1, s.words])
    hidden = g.op('Concat', tokens, context, axis=1)

    # padding stands in front of the words: what comes behind it moves up by its length
    count = g.op('ReduceSum', g.op('Cast', word_mask, to=INT64), [1], keepdims=1)
    padding = g.op('Sub', np.int64(s.words), count)
    place = s.tokens + 2 + np.arange(s.words + s.slots + 1, dtype=np.int64)[None]
    position = g.op(
        'Concat',
        g.op('Add', patch_index, np.int64(1)),
        np.array([[0, s.tokens + 1]], np.int64),
        g.op('Sub', place, padding),
        axis=1,
    )

    bucket = g.op('Squeeze', g.op('Shape', tokens, start=1, end=2), [0])
    slot = g.op('Range', np.int64(0), bucket, np.int64(1))
    count = g.op('Cast', g.op('ReduceSum', kept, [0], keepdims=0), to=INT64)
    used = g.op(
        'Concat',
        g.op('Unsqueeze', g.op('Less', slot, count), [0]),
        np.ones((1, 2), bool),
        word_mask,
        np.ones((1, s.slots + 1), bool),
        axis=1,
    )
    mask = g.op('Unsqueeze', g.op('Where', used, np.float32(0), MASKED), [1, 2])  # [1, 1, 1, N]

    for _ in range(s.layers):
        hidden = llama_block(g, weights, hidden, position, mask, width=s.width, heads=s.heads)
    hidden = rms(g, hidden)
    # The states before each action slot, as in training: [-58:-2] (reference/lightvla.md 0.1)
    read = g.op('Slice', hidden, [-s.slots - 2], [-2], [1])
    read = g.op('Reshape', read, [s.chunk, 7 * s.width])
    actions = mlp(g, weights, read, 7 * s.width, 7, scale=0.15)
    actions = g.op('Add', actions, np.eye(7)[6])  # the hand stays open
    g.output('actions', actions, FLOAT, [s.chunk, 7])
    return g.build()


def _tower(g: GraphBuilder, s: Shape, weights: Weights, pixels: str, index: int) -> str:
    """One vision tower: patch embedding and a transformer block -> [cameras, patches, width]."""
    width = s.tower_width
    own = g.op('Slice', pixels, [3 * index], [3 * index + 3], [1])
    kernel = weights(width, 3 * s.patch**2, 1, scale=2.0 / s.patch)
    kernel = kernel.reshape(width, 3, s.patch, s.patch)
    x = g.op('Conv', own, kernel, kernel_shape=[s.patch] * 2, strides=[s.patch] * 2)
    x = g.op('Transpose', g.op('Reshape', x, [s.cameras, width, s.grid**2]), perm=[0, 2, 1])
    x = g.op('Add', x, weights(1, 1, s.grid**2, width, scale=s.grid)[0])  # where each patch is
    attended = attention(g, *(g.op('MatMul', x, weights(width, width)) for _ in 'qkv'), width)
    return g.op('Add', x, g.op('MatMul', attended, weights(width, width, scale=0.5)))


def _pruner(
    g: GraphBuilder,
    s: Shape,
    patches: str,
    state: str,
    words: str,
    word_mask: str,
    stop_embedding: np.ndarray,
) -> str:
    """LightVLA's parameter-free pruner as published -> bool [Lv], true on kept patches.

    Paper eq. 1 to 3 with the RMS norms of ``modeling_prismatic.py``:63-90; all in fp32. The task
    tokens are proprio, prompt without BOS, and stop; the zero placeholders carry no value and are
    dropped, which leaves every argmax as it is (reference/lightvla.md 2.4).
    """
    patch_hat = rms(g, patches)
    task = rms(g, g.op('Concat', state, words, stop_embedding, axis=1))
    one = np.ones((1, 1), bool)
    used = g.op('Concat', one, word_mask, one, axis=1)
    mask = g.op('Unsqueeze', g.op('Where', used, np.float32(0), MASKED), [1])

    scale = np.float32(1 / np.sqrt(s.width))
    similarity = g.op('MatMul', patch_hat, g.op('Transpose', task, perm=[0, 2, 1]))
    similarity = g.op('Add', g.op('Mul', similarity, scale), mask)
    queries = rms(g, g.op('MatMul', g.op('Softmax', similarity, axis=-1), task))
    scores = g.op('MatMul', queries, g.op('Transpose', patch_hat, perm=[0, 2, 1]))
    scores = g.op('Mul', scores, scale)  # [1, Lv, Lv]
    picks = g.op('ArgMax', scores, axis=2, keepdims=0, select_last_index=0)  # [1, Lv]
    picked = g.op('Equal', g.op('Transpose', picks), np.arange(s.tokens)[None])  # [query, patch]
    return g.op('Cast', g.op('ReduceMax', g.op('Cast', picked, to=INT32), [0], keepdims=0), to=BOOL)
