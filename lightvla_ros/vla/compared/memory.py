"""What the methods keep between the chunks of an episode."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Layer:
    """What a layer leaves for the next chunk.

    :param keys: [1, heads, N, size], rotated.
    :param values: [1, heads, N, size].
    :param attention: float32 [computed rows, N], over heads.
    """

    keys: Tensor
    values: Tensor
    attention: Tensor


@dataclass(frozen=True)
class Cache:
    """What a chunk leaves for the next one.

    :param rgb: [cameras, 3, H, W], see :attr:`Pictures.rgb`.
    :param relevance: float32 [Lv], attention from the words in the middle layer.
    :param shares: Share of the reusable patches that each layer may reuse, 0 to 1.
    """

    rgb: Tensor
    layers: list[Layer]
    relevance: Tensor
    shares: list[float]


@dataclass
class Memory:
    """What a method keeps between the chunks of an episode.

    :param seed: Seed of random draws.
    :param chunk: Number of the chunk, from 0.
    :param attention: Attention of the action slots to the patches [Lv], of each earlier chunk.
    :param cache: What VLA-Cache keeps of the last chunk.
    :param computed: The last chunks that FlashVLA's reuse may give again (``action_reuse.py``).
    """

    seed: tuple[int, ...] = (0,)
    chunk: int = 0
    attention: list[Tensor] = field(default_factory=list)
    cache: Cache | None = None
    computed: list[tuple[Tensor, Tensor]] = field(default_factory=list)
