"""Instructions: what is accepted, and how one becomes token ids."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from pathlib import Path

import numpy as np

from lightvla_ros.contract import Prompt as PromptSpec
from lightvla_ros.engine.base import Prompt
from lightvla_ros.errors import LightVLAError

MAX_LENGTH = 512  # characters
MAX_BYTES = 1024  # in UTF-8: the bound of `instruction` in ActionChunk.msg and VlaStatus.msg
PAD_ID = 0  # any id will do: padding is masked everywhere


class InstructionError(LightVLAError, ValueError):
    """An instruction that is refused; one line says why."""


def check_instruction(text: str) -> str:
    """Return the instruction without surrounding white space, if it is one.

    :raises InstructionError: When it is empty, too long, or holds characters that no person types.
    """
    # first, because an attacker's 4 MiB must not be looked at character by character
    if len(text) > MAX_LENGTH:
        raise InstructionError(f'{len(text)} characters; at most {MAX_LENGTH} are taken')
    text = text.strip()
    if not text:
        raise InstructionError('it is empty')
    if (size := len(text.encode('utf-8', 'surrogatepass'))) > MAX_BYTES:
        raise InstructionError(f'{size} bytes in UTF-8; at most {MAX_BYTES} are taken')
    if '\ufffd' in text:
        raise InstructionError('it is not UTF-8')
    for character in text:
        if unicodedata.category(character) in ('Cc', 'Cs', 'Co', 'Cn'):
            raise InstructionError(f'it holds the control character {character!r}')
    return text


class PromptEncoder:
    """Text -> prompt ids, by a manifest's template and tokenizer; remembered per instruction.

    :param vocabulary: Ids that the policy has embeddings of; None leaves them unchecked.
    :raises ContractError: When the tokenizer cannot be trusted; see ``tokenizer.py``.
    """

    def __init__(
        self, spec: PromptSpec, tokenizer_path: Path, vocabulary: int | None = None
    ) -> None:
        from lightvla_ros.tokenizer import check_tokenizer, read_tokenizer

        self._spec = spec
        self._tokenizer = read_tokenizer(tokenizer_path)
        check_tokenizer(self._tokenizer, tokenizer_path, spec.template, vocabulary)
        self._cached = lru_cache(maxsize=64)(self._encode)

    def __call__(self, instruction: str) -> Prompt:
        """Encode an instruction.

        Safe from any thread.

        :raises InstructionError: When the prompt is longer than the graphs take; it is never cut.
        """
        return self._cached(instruction)

    def _encode(self, instruction: str) -> Prompt:
        spec = self._spec
        if spec.lowercase:
            instruction = instruction.lower()
        ids = self._tokenizer.encode(spec.template.replace('{instruction}', instruction)).ids
        # OpenVLA appends 29871 unless the tokenizer has (modeling_prismatic.py, predict_action)
        if tuple(ids[-len(spec.append_ids) :]) != spec.append_ids:
            ids = [*ids, *spec.append_ids]
        if len(ids) > spec.length:
            raise InstructionError(
                f'the prompt has {len(ids)} tokens, the policy takes {spec.length}: '
                f'shorten the instruction by {len(ids) - spec.length} tokens'
            )
        padded = np.full((1, spec.length), PAD_ID, np.int64)
        padded[0, spec.length - len(ids) :] = ids
        mask = np.zeros((1, spec.length), bool)
        mask[0, spec.length - len(ids) :] = True
        return Prompt(padded, mask)
