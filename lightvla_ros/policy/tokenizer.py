"""The tokenizer of a policy, read, and its encoding checked before a robot is told anything by it.

``tokenizer.json`` holds more than a vocabulary. With truncation inside, every long instruction
becomes the same ids, so a robot does the same whatever it is told; with padding or an end token a
policy is asked in a form that it was never trained on. None of that fails by itself.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from lightvla_ros.errors import ContractError, one_line
from lightvla_ros.files import LFS_POINTER, is_lfs_pointer

WORDS = ('pick up', 'pick up the', 'pick up the black', 'pick up the black bowl')


def read_tokenizer(path: Path) -> Tokenizer:
    """Read ``tokenizer.json``.

    :raises ContractError: When it is missing or none.
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
    """Check the whole encoding: one begin token, no end, every word counts, ids are known.

    :param path: For the messages.
    :param template: The prompt around ``{instruction}``.
    :param vocabulary: Ids that the policy has embeddings of; None leaves them unchecked.
    :returns: The id of the begin token.
    :raises ContractError: With what is wrong.
    """
    for setting in ('truncation', 'padding'):
        if getattr(tokenizer, setting) is not None:
            raise ContractError(
                f'{path}: {setting} is stored inside, so instructions lose their words or gain '
                f'tokens; set "{setting}" to null there, then import or export the policy again'
            )
    added = tokenizer.encode('').ids
    if len(added) != 1:
        raise ContractError(
            f'{path}: adds the tokens {added} to a prompt; it must be one begin token, and no end '
            'token: make the file again with add_bos_token=True, add_eos_token=False'
        )
    lengths = []
    for words in WORDS:
        text = template.replace('{instruction}', words)
        ids = tokenizer.encode(text).ids
        bare = tokenizer.encode(text, add_special_tokens=False).ids
        if ids != added + bare:
            raise ContractError(
                f'{path}: puts token {added[0]} behind the prompt, not in front; make the file '
                'again with add_bos_token=True, add_eos_token=False'
            )
        if added[0] in bare:
            raise ContractError(f'{path}: gives the begin token {added[0]} within a prompt, too')
        lengths.append(len(ids))
    if sorted(set(lengths)) != lengths:
        raise ContractError(
            f'{path}: one more word does not give more ids ({lengths} of {list(WORDS)}), so '
            'instructions are not told apart; take the tokenizer that the policy was trained with'
        )
    highest = max(tokenizer.get_vocab(with_added_tokens=True).values())
    if vocabulary is not None and highest >= vocabulary:
        raise ContractError(
            f'{path}: gives ids up to {highest}, the policy has embeddings of {vocabulary}; take '
            'the tokenizer that the policy was trained with'
        )
    return added[0]
