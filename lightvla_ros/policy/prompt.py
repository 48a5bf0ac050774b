"""Checks instructions and turns them into token ids."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from lightvla_ros.contract import Prompt
from lightvla_ros.engine.base import PromptIds
from lightvla_ros.errors import InstructionError, quoted

MAX_LENGTH = 512  # characters
MAX_BYTES = 1024  # in UTF-8: the bound of `instruction` in ActionChunk.msg and VlaStatus.msg
# Invisible letters, marks and symbols (Default_Ignorable_Code_Point, and the blank of Braille); the
# Hangul fillers U+3164 and U+FFA0 become U+1160 in NFKC
BLANKS = frozenset(
    '\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0'
    + ''.join(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
)
APOSTROPHES = "'\u2019"
STOP_WORDS = (
    'stop',
    'halt',
    'pause',
    'freeze',
    'wait',
    'abort',
    'cancel',
    'quit',
    'emergency',
    'hold on',
    'hold still',
    'stand still',
    'dont move',  # apostrophes are ignored
    'do not move',
)
PAD_ID = 0  # the value does not matter: padding is masked everywhere


def check_instruction(text: str) -> str:
    """Return a valid instruction in Unicode's form NFKC, without surrounding white space.

    :raises InstructionError: When it is too long, has no visible letter, or holds characters that
        no person types (control, direction and invisible characters).
    """
    # first, because an attacker's 4 MiB must not be processed character by character
    if len(text) > MAX_LENGTH:
        raise InstructionError(f'{len(text)} characters; at most {MAX_LENGTH} are allowed')
    text = unicodedata.normalize('NFKC', text).strip()
    if not text:
        raise InstructionError('it is empty')
    if len(text) > MAX_LENGTH:  # one character can become 18
        raise InstructionError(f'{len(text)} characters in NFKC; at most {MAX_LENGTH} are allowed')
    if (size := len(text.encode('utf-8', 'surrogatepass'))) > MAX_BYTES:
        raise InstructionError(f'{size} bytes in UTF-8; at most {MAX_BYTES} are allowed')
    if '\ufffd' in text:
        raise InstructionError('it is not UTF-8')
    for character in text:
        if _invisible(character):
            name = unicodedata.name(character, 'a control character')
            raise InstructionError(f'it holds {name} (U+{ord(character):04X}); remove it')
    if not any(character.isalpha() for character in text):
        raise InstructionError('it has no letter')
    return text


def stop_words_in(text: str, words: Sequence[str]) -> str:
    """Return the first of ``words`` (or phrases) that occurs in a text; empty if none does.

    Case, punctuation and invisible characters are ignored. Of a long text only the beginning is
    searched.
    """
    said = f' {" ".join(_plain_words(text[:MAX_LENGTH]))} '
    for word in words:
        plain = ' '.join(_plain_words(word))
        if plain and f' {plain} ' in said:
            return word
    return ''


def _plain_words(text: str) -> list[str]:
    seen = (c for c in unicodedata.normalize('NFKC', text) if c.isspace() or not _invisible(c))
    spaced = (c if c.isalnum() else ' ' for c in seen if c not in APOSTROPHES)
    return ''.join(spaced).casefold().split()


def _invisible(character: str) -> bool:
    """Return whether a character is invisible, or changes the direction of the text."""
    return (
        unicodedata.category(character) in ('Cc', 'Cf', 'Cs', 'Co', 'Cn', 'Zl', 'Zp')
        or character in BLANKS
    )


class PromptEncoder:
    """Text -> prompt ids, by a manifest's template and tokenizer; results are cached.

    :param vocabulary: Number of ids that the policy has embeddings for; None: not checked.
    :raises ContractError: When the tokenizer cannot be trusted; see ``tokenizer.py``.
    """

    def __init__(self, spec: Prompt, tokenizer_path: Path, vocabulary: int | None = None) -> None:
        from tokenizers import models

        from lightvla_ros.policy.tokenizer import check_tokenizer, read_tokenizer

        self._spec = spec
        self._tokenizer = read_tokenizer(tokenizer_path)
        check_tokenizer(self._tokenizer, tokenizer_path, spec.template, vocabulary)
        model = self._tokenizer.model  # one token per word, or any word in pieces
        whole = isinstance(model, models.WordLevel)
        self._unknown_id = self._tokenizer.token_to_id(model.unk_token) if whole else None
        self._cached = lru_cache(maxsize=64)(self._encode)

    def __call__(self, instruction: str) -> PromptIds:
        """Encode an instruction.

        Safe from any thread.

        :raises InstructionError: When the prompt is longer than the graphs allow; it is never cut.
        """
        return self._cached(instruction)

    def unknown_words(self, instruction: str) -> tuple[str, ...]:
        """Return the instruction's words that the tokenizer does not know.

        Empty for a tokenizer that splits any word into pieces: it has no unknown words.

        :raises InstructionError: When it knows none of the words.
        """
        if self._unknown_id is None:
            return ()
        if self._spec.lowercase:
            instruction = instruction.lower()
        encoding = self._tokenizer.encode(instruction, add_special_tokens=False)
        known, unknown = [], []
        for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            word = instruction[start:end]
            if token == self._unknown_id:
                unknown.append(word)
            elif any(character.isalpha() for character in word):
                known.append(word)
        if not known:
            raise InstructionError(
                f'the policy knows none of its words: {quoted(" ".join(unknown))}'
            )
        return tuple(unknown)

    def _encode(self, instruction: str) -> PromptIds:
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
        return PromptIds(padded, mask)
