"""Other words for the requests of the data: whoever asks a robot does not know its training data.

The rules are the user's, in a YAML file such as ``config/paraphrases/libero.yaml``, so that each
paraphrase can be read before a robot learns it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lightvla_ros.errors import ConfigError, TrainError
from lightvla_ros.train.config_sources import Paraphrases
from lightvla_ros.typed_yaml import build, read_yaml

LOG = logging.getLogger(__name__)
DRAWN = 500  # texts that are drawn for each request; many of them are equal


@dataclass(frozen=True)
class Rule:
    r"""What can be said instead of a part of a request.

    :param pattern: A regular expression (module ``re``) for whole words in lower case.
    :param others: What can replace it, with ``\1`` for the pattern's first group. May be empty.
    """

    pattern: str
    others: tuple[str, ...]


@dataclass(frozen=True)
class Rules:
    """The rules of a file, in the order in which they are applied."""

    rules: tuple[Rule, ...]


def read_rules(path: Path) -> Rules:
    """Read a YAML file of rules.

    :raises ConfigError: When it is invalid; it names file and rule.
    """
    try:
        rules = build(Rules, read_yaml(path))
    except ConfigError as error:
        name = '' if str(error).startswith(str(path)) else f'{path}: '
        raise ConfigError(f'{name}{error}') from None
    for rule in rules.rules:
        if not rule.others:
            raise ConfigError(f'{path}: the rule {rule.pattern!r} has no others')
        try:
            # an alternative makes every pattern match, so that the templates are tried, too
            match = re.compile(f'(?:{rule.pattern})|').match('')
            for other in rule.others:
                match.expand(other)
        except (re.error, IndexError) as error:
            raise ConfigError(f'{path}: the rule {rule.pattern!r}: {error}') from None
    return rules


def all_texts(
    instructions: Sequence[str], config: Paraphrases | None
) -> tuple[tuple[str, ...], ...]:
    """Return each request with its paraphrases: first as it was recorded, then in other words.

    The same for every run with these requests and rules.

    :raises ConfigError: See :func:`read_rules`.
    :raises TrainError: When two requests have a text in common, or the rules fit a request nowhere.
    """
    if config is None:
        return tuple((text,) for text in instructions)
    rules = read_rules(Path(config.rules))
    texts = tuple((text, *paraphrases(text, rules)) for text in instructions)
    owner: dict[str, str] = {}
    for own in texts:
        if len(own) == 1:
            raise TrainError(f'{config.rules}: no rule fits {own[0]!r}; add one')
        for text in own:
            other = owner.setdefault(text, own[0])
            if other != own[0]:
                raise TrainError(
                    f'{config.rules}: {text!r} can mean {other!r} and {own[0]!r}; change the '
                    'rules, so that a policy can tell them apart'
                )
    return texts


def paraphrases(instruction: str, rules: Rules) -> list[str]:
    """Draw other texts for a request, in alphabetical order.

    Each part that a rule fits stays as it is or is replaced by one of its others, by equal chance.
    """
    random = np.random.default_rng(0)
    found = set()
    recorded = ' '.join(instruction.lower().split())
    for _ in range(DRAWN):
        text = recorded
        for rule in rules.rules:

            def say(match: re.Match[str], rule: Rule = rule) -> str:
                index = int(random.integers(len(rule.others) + 1))
                return match[0] if index == len(rule.others) else match.expand(rule.others[index])

            text = ' '.join(re.sub(rf'\b(?:{rule.pattern})\b', say, text).split())
        found.add(text)
    return sorted(found - {recorded})
