"""Reads a policy's tokenizer and checks its encoding before a robot uses it.

``tokenizer.json`` holds more than a vocabulary. If it truncates, different long instructions become
the same ids, so the robot does the same for all of them. If it adds padding or an end token, the
policy gets prompts of a form that it was never trained on. None of these faults raises an error.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from lightvla_ros.errors import ContractError, one_line
from lightvla_ros.files import LFS_POINTER, is_lfs_pointer

WORDS = ('pick up', 'pick up the', 'pick up the black', 'pick up the black bowl')


def read_tokenizer(path: Path) -> Tokenizer:
    """Read ``tokenizer.json``.

    :raises ContractError: When it is missing or not a tokenizer.
    """
    if not path.is_file():
        raise ContractError(f'{path}: is missing')
    if is_lfs_pointer(path):
        raise ContractError(f'{path}: {LFS_POINTER}')
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises a plain Exception
        raise ContractError(f'{path}: not a tokenizer: {one_line(error)}') from None


def check_tokenizer(
    tokenizer: Tokenizer, path: Path, template: str, vocabulary: int | None = None
) -> int:
    """Check the encoding: one begin token, no end token, every word adds ids, all ids are known.

    :param path: The file, for error messages.
    :param template: The prompt around ``{instruction}``.
    :param vocabulary: Number of ids that the policy has embeddings for; None: not checked.
    :returns: The id of the begin token.
    :raises ContractError: When a check fails.
    """
    for setting in ('truncation', 'padding'):
        if getattr(tokenizer, setting) is not None:
            raise ContractError(
                f'{path}: {setting} is stored inside, so instructions lose words or gain tokens; '
                f'set "{setting}" to null there, then import or export the policy again'
            )
    added = tokenizer.encode('').ids
    if len(added) != 1:
        raise ContractError(
            f'{path}: it adds the tokens {added} to a prompt; it must add one begin token and no '
            'end token: make the file again with add_bos_token=True, add_eos_token=False'
        )
    lengths = []
    for words in WORDS:
        text = template.replace('{instruction}', words)
        ids = tokenizer.encode(text).ids
        bare = tokenizer.encode(text, add_special_tokens=False).ids
        if ids != added + bare:
            raise ContractError(
                f'{path}: it puts token {added[0]} after the prompt, not before it; make the file '
                'again with add_bos_token=True, add_eos_token=False'
            )
        if added[0] in bare:
            raise ContractError(f'{path}: it gives the begin token {added[0]} also within a prompt')
        lengths.append(len(ids))
    if sorted(set(lengths)) != lengths:
        raise ContractError(
            f'{path}: one more word does not give more ids ({lengths} for {list(WORDS)}), so '
            'instructions cannot be distinguished; use the tokenizer that the policy was trained '
            'with'
        )
    highest = max(tokenizer.get_vocab(with_added_tokens=True).values())
    if vocabulary is not None and highest >= vocabulary:
        raise ContractError(
            f'{path}: it gives ids up to {highest}, the policy has embeddings for {vocabulary}; '
            'use the tokenizer that the policy was trained with'
        )
    return added[0]
