"""The embedded prompt, which the graphs take instead of token ids.

It depends only on the instruction. So the host looks it up once per instruction, and neither the
graphs nor a GPU's memory hold the table of embeddings, which for LLaMA-2 takes 0.26 GB in fp16.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lightvla_ros.contract import Manifest
from lightvla_ros.engine.base import PromptIds
from lightvla_ros.errors import EngineError


class PromptWords:
    """Token ids -> embeddings, by a policy folder's table; only the used parts are read."""

    def __init__(self, policy_dir: Path, manifest: Manifest) -> None:
        path = Path(policy_dir) / manifest.graphs.embedding
        try:
            self._table = np.load(path, mmap_mode='r', allow_pickle=False)
        except (OSError, ValueError):  # NumPy's message advises unsafe pickle
            raise EngineError(
                f'{path}: not a table of embeddings; export the policy again'
            ) from None
        if self._table.ndim != 2 or self._table.dtype != np.float32:
            raise EngineError(
                f'{path}: it is {self._table.dtype} {self._table.shape}, not float32 '
                '[vocabulary, D]; export the policy again'
            )

    @property
    def width(self) -> int:
        """Number of channels of an embedding, D."""
        return self._table.shape[1]

    def __call__(self, prompt: PromptIds) -> tuple[np.ndarray, np.ndarray]:
        """Look up a prompt without BOS, which the graphs contain.

        :returns: Words float32 [1, P - 1, D], and their mask bool [1, P - 1]: False for padding,
            and for BOS if padding is before it.
        :raises EngineError: When the tokenizer gives an id that the table does not have.
        """
        ids = prompt.ids[:, 1:]
        # a token is a word if a real token is before it: BOS or another word
        mask = np.ascontiguousarray(prompt.mask[:, :-1])
        if ids.max() >= len(self._table) or ids.min() < 0:
            raise EngineError(
                f'the tokenizer gives id {ids.max()}, but the table of embeddings has '
                f'{len(self._table)}; tokenizer and weights are of different policies'
            )
        return np.ascontiguousarray(self._table[ids]), mask
