"""The embedded prompt: what the graphs take in the place of token ids.

It depends on the instruction alone. So it is looked up on the host, once per instruction, and the
graphs (and a GPU's memory) hold no embedding table, which for LLaMA-2 is 0.26 GB in fp16.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lightvla_ros.contract import Manifest
from lightvla_ros.engine.base import PromptIds
from lightvla_ros.errors import EngineError


class PromptWords:
    """Token ids -> embeddings, by the table of a policy folder, read as far as it is used."""

    def __init__(self, policy_dir: Path, manifest: Manifest) -> None:
        path = Path(policy_dir) / manifest.graphs.embedding
        try:
            self._table = np.load(path, mmap_mode='r', allow_pickle=False)
        except (OSError, ValueError):  # NumPy's text advises to execute what a file holds
            raise EngineError(
                f'{path}: not a table of embeddings; export the policy again'
            ) from None
        if self._table.ndim != 2 or self._table.dtype != np.float32:
            raise EngineError(
                f'{path}: is {self._table.dtype} {self._table.shape}; float32 [vocabulary, D] is '
                'needed; export the policy again'
            )

    @property
    def width(self) -> int:
        """Channels of an embedding, D."""
        return self._table.shape[1]

    def __call__(self, prompt: PromptIds) -> tuple[np.ndarray, np.ndarray]:
        """Look a prompt up, without BOS, which the graphs know.

        :returns: Words float32 [1, P - 1, D], and their mask bool [1, P - 1]: false on BOS, where
            padding stands before it, and on the padding.
        :raises EngineError: When the tokenizer gives an id that the table does not have.
        """
        ids = prompt.ids[:, 1:]
        # a word is what comes after something real: BOS or another word
        mask = np.ascontiguousarray(prompt.mask[:, :-1])
        if ids.max() >= len(self._table) or ids.min() < 0:
            raise EngineError(
                f'the tokenizer gives id {ids.max()}, the table of embeddings has '
                f'{len(self._table)}; tokenizer and weights are of different policies'
            )
        return np.ascontiguousarray(self._table[ids]), mask
