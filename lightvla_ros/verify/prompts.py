"""Checks that different instructions become different prompts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lightvla_ros.contract import Manifest
from lightvla_ros.errors import ContractError, InstructionError
from lightvla_ros.policy.golden import INSTRUCTIONS
from lightvla_ros.policy.prompt import PromptEncoder


def check_prompts(policy_dir: Path, manifest: Manifest, instructions: Iterable[str]) -> None:
    """Encode ``instructions`` and those of ``policy/golden.py``; no two may become one prompt.

    :raises ContractError: Naming two that become one prompt; a robot would do the same for both.
    """
    path = Path(policy_dir) / manifest.prompt.tokenizer
    encode = PromptEncoder(manifest.prompt, path)
    seen: dict[bytes, str] = {}
    for text in [*instructions, *INSTRUCTIONS]:
        try:
            other = seen.setdefault(encode(text).ids.tobytes(), text)
        except InstructionError:  # longer than the graphs allow: a node refuses it
            continue
        if _words(other) != _words(text):
            raise ContractError(
                f'{path}: {other!r} and {text!r} become the same prompt, so the policy cannot tell '
                'them apart; use the tokenizer that it was trained with'
            )


def _words(text: str) -> list[str]:
    return text.casefold().split()
