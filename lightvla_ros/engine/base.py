"""The engine interface with its two calls, between a policy and the library that computes it.

``encode`` turns an observation into visual tokens, with the kept ones first. The host then reads
their number, a few bytes, and chooses the smallest bucket that holds it; ``act`` runs the language
model and the head on as many tokens as the bucket has. All shapes except the bucket are static, so
one engine serves every observation (``docs/explanation/engines.md``).
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class PromptIds:
    """A tokenised instruction.

    Padding comes first, so that the last prompt token is always directly before the action slots,
    where the head's slice begins.

    :param ids: int64 [1, P].
    :param mask: bool [1, P], False for padding.
    """

    ids: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class Encoded:
    """The result of ``encode``.

    :param kept: Number of kept visual tokens per camera, in the manifest's order; the sum K is at
        least 1, but 0 for a chunk that is given again.
    :param handle: The engine's reference to tokens, position ids and context. Valid until the next
        ``encode``.
    :param tensors: The graphs' tensors by name, not copied, if they are in the host's memory; for
        tests and verification.
    :param again: Whether this is the last chunk once more, for which nothing was computed: only
        the compared method FlashVLA does so.
    """

    kept: tuple[int, ...]
    handle: Any = None
    tensors: dict[str, np.ndarray] | None = None
    again: bool = False


class Engine(Protocol):
    """What a policy needs from an engine. Not thread-safe: one thread calls it at a time.

    ``backend`` (such as ``onnxruntime-cpu``) and ``precision`` (such as ``fp32``) name what is
    really used; ``fingerprint`` identifies graphs, library and options, and the GPU if the engine
    was built for one.
    """

    backend: str
    precision: str
    fingerprint: str

    def encode(self, pixels: np.ndarray, prompt: PromptIds, proprio: np.ndarray | None) -> Encoded:
        """Encode one observation.

        :param pixels: float32 [cameras, channels, height, width], normalised.
        :param prompt: The tokenised instruction.
        :param proprio: float32 [1, S] in [-1, 1]; None if the policy takes none.
        :raises EngineError: When the engine fails.
        """
        ...

    def act(self, encoded: Encoded, bucket: int) -> np.ndarray:
        """Predict a chunk from the first ``bucket`` visual tokens; ``bucket`` >= K.

        :returns: float32 [chunk_length, 7], normalised.
        :raises EngineError: When the engine fails.
        """
        ...

    def kept_patches(self, encoded: Encoded) -> np.ndarray:
        """Return the kept patches.

        :returns: int64 [K], ascending, 0 .. cameras * patches_per_camera - 1 in camera order.
        """
        ...

    def close(self) -> None:
        """Free the engine's resources; it must not be used afterwards."""
        ...


def smallest_bucket(buckets: tuple[int, ...], kept: int) -> int:
    """Return the smallest of the ascending ``buckets`` that holds ``kept`` tokens.

    :raises ValueError: When ``kept`` is not in 1 to the last bucket; tokens are never dropped.
    """
    if not 1 <= kept <= buckets[-1]:
        raise ValueError(f'{kept} kept tokens, but 1 to {buckets[-1]} are possible')
    return buckets[bisect_left(buckets, kept)]
