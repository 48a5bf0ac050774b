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

    :param texts: What each instruction can be called, first as it was recorded.
    :raises TrainError: When a text is too long or holds a word unknown to the policy.
    """

    def __init__(self, texts: Sequence[Sequence[str]], spec: Prompt, tokenizer: Path) -> None:
        encode = PromptEncoder(spec, tokenizer)
        ids, masks = [], []
        for recorded, instruction in ((each[0], text) for each in texts for text in each):
            called = f'instruction {instruction!r}'
            if instruction != recorded:
                called = f'{instruction!r}, in other words for {recorded!r} (data.paraphrases),'
            try:
                prompt, unknown = encode(instruction), encode.unknown_words(instruction)
            except InstructionError as error:
                raise TrainError(f'{called}: {error}') from None
            if unknown:
                raise TrainError(
                    f'{called} has words unknown to {tokenizer}: '
                    f'{quoted(", ".join(unknown))}; say it in words that the policy knows, '
                    'set model.words to data (for a tokenizer with one token per word), or '
                    'train from a preset (its words are those of the data) or from an imported '
                    "checkpoint (OpenVLA's tokenizer knows all words)"
                )
            ids.append(prompt.ids[0])
            masks.append(prompt.mask[0])
        self._ids = torch.from_numpy(np.stack(ids))
        self._masks = torch.from_numpy(np.stack(masks))
        counts = torch.tensor([len(each) for each in texts])
        self._others = counts - 1
        self._recorded = counts.cumsum(0) - counts
        self.used_ids = sorted(set(self._ids[self._masks].tolist()))

    def __call__(self, instructions: np.ndarray, share: float = 0.0) -> tuple[Tensor, Tensor]:
        """Return ids int64 [B, P] and mask bool [B, P], as long as the batch's longest prompt.

        :param share: Share of them in other words, drawn with the global random generator.
        """
        index = torch.from_numpy(instructions)
        others, index = self._others[index], self._recorded[index]
        if share:
            other = 1 + (torch.rand(len(index)) * others).long()
            index = torch.where(torch.rand(len(index)) < share, index + other, index)
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
