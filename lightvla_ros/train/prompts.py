"""All instructions of the data, encoded once by the policy's own tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from lightvla_ros.contract import Prompt
from lightvla_ros.errors import InstructionError, TrainError, quoted
from lightvla_ros.policy.prompt import PromptEncoder

UNKNOWN = '<unk>'


class PromptTable:
    """Table of token ids by instruction.

    :raises TrainError: When an instruction is too long or holds a word unknown to the policy.
    """

    def __init__(self, instructions: Sequence[str], spec: Prompt, tokenizer: Path) -> None:
        encode = PromptEncoder(spec, tokenizer)
        ids, masks = [], []
        for instruction in instructions:
            try:
                prompt, unknown = encode(instruction), encode.unknown_words(instruction)
            except InstructionError as error:
                raise TrainError(f'instruction {instruction!r}: {error}') from None
            if unknown:
                raise TrainError(
                    f'instruction {instruction!r} has words unknown to {tokenizer}: '
                    f'{quoted(", ".join(unknown))}; say it in words that the policy knows, or '
                    'train from a preset (its words are those of the data) or from an imported '
                    "checkpoint (OpenVLA's tokenizer knows all words)"
                )
            ids.append(prompt.ids[0])
            masks.append(prompt.mask[0])
        self._ids = torch.from_numpy(np.stack(ids))
        self._masks = torch.from_numpy(np.stack(masks))
        self.used_ids = sorted(set(self._ids[self._masks].tolist()))

    def __call__(self, instructions: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return ids int64 [B, P] and mask bool [B, P], as long as the batch's longest prompt."""
        index = torch.from_numpy(instructions)
        ids, masks = self._ids[index], self._masks[index]
        first = int(masks.any(0).int().argmax())  # padding is in front
        return ids[:, first:], masks[:, first:]


def word_ids(words: Sequence[str], tokenizer: Path, lowercase: bool) -> list[list[int]]:
    """Return the ids of each entry's words, without the special tokens of a prompt.

    :raises TrainError: When the tokenizer does not know a word.
    """
    loaded = Tokenizer.from_file(str(tokenizer))
    unknown = loaded.token_to_id(UNKNOWN)
    found = []
    for text in words:
        ids = loaded.encode(text.lower() if lowercase else text, add_special_tokens=False).ids
        if not ids or unknown in ids:
            raise TrainError(f'alignment: {text!r} is unknown to {tokenizer}: choose other words')
        found.append(ids)
    return found
