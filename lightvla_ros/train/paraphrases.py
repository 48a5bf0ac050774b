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

from lightvla_ros.errors import ConfigError, InstructionError, TrainError
from lightvla_ros.policy.prompt import check_instruction
from lightvla_ros.train.config_sources import Paraphrases
from lightvla_ros.typed_yaml import build, read_yaml

LOG = logging.getLogger(__name__)
DRAWN = 500  # texts that are drawn for each request; each different one is shown equally often


@dataclass(frozen=True)
class Rule:
    r"""What can be said instead of a part of a request.

    :param pattern: A regular expression (module ``re``) for whole words, which white space ends, in
        lower case.
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
            if re.compile(rule.pattern).fullmatch(''):
                raise ConfigError(f'{path}: the rule {rule.pattern!r} also fits where no word is')
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

    The same for every run with these requests and rules. A rule that fits no request is logged.

    :raises ConfigError: See :func:`read_rules`.
    :raises TrainError: When two requests have a text in common, a request has no other words, or a
        text is none that a robot takes (``check_instruction``).
    """
    if config is None:
        return tuple((text,) for text in instructions)
    rules = read_rules(Path(config.rules))
    texts = tuple((text, *paraphrases(text, rules)) for text in instructions)
    for rule in rules.rules:
        if not any(_compiled(rule).search(_plain(text)) for own in texts for text in own):
            LOG.warning('%s: the rule %r fits no request', config.rules, rule.pattern)
    owner: dict[str, str] = {}
    for own in texts:
        if len(own) == 1:
            raise TrainError(f'{config.rules}: no rule says {own[0]!r} in other words; add one')
        for text in own:
            try:
                check_instruction(text)
            except InstructionError as error:
                raise TrainError(f'{config.rules}: {text!r} for {own[0]!r}: {error}') from None
            other = owner.setdefault(_plain(text), own[0])
            if _plain(other) != _plain(own[0]):
                raise TrainError(
                    f'{config.rules}: {text!r} can mean {other!r} and {own[0]!r}; change the '
                    'rules so that a policy can tell them apart, or if they are the same request, '
                    'say it in the data in one way'
                )
    return texts


def paraphrases(instruction: str, rules: Rules) -> list[str]:
    """Draw other texts for a request, in lower case and in alphabetical order.

    In each draw a part that a rule fits stays or is replaced by one of its others, by equal chance.
    """
    random = np.random.default_rng(0)
    found = set()
    recorded = _plain(instruction)
    for _ in range(DRAWN):
        text = recorded
        for rule in rules.rules:

            def say(match: re.Match[str], rule: Rule = rule) -> str:
                index = int(random.integers(len(rule.others) + 1))
                kept = index == len(rule.others) or not match[0]
                return match[0] if kept else match.expand(rule.others[index])

            text = _plain(_compiled(rule).sub(say, text))
        found.add(text)
    return sorted(found - {recorded})


def _plain(text: str) -> str:
    return ' '.join(text.lower().split())


def _compiled(rule: Rule) -> re.Pattern[str]:
    return re.compile(rf'(?<!\S)(?:{rule.pattern})(?!\S)')
