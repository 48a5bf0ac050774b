"""Figures and tables of the objects that a policy was told to reach, and that it reached."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightvla_ros.evaluate.episodes import error_lines
from lightvla_ros.evaluate.rates import rate_of
from lightvla_ros.sim.hand import NONE

NAMED, OTHER, ELSE = 'named bowl', 'other bowl', 'something else'
BOWLS = (NAMED, OTHER, ELSE, NONE)


def summarise(answers: Sequence[Answer]) -> dict[str, Any]:
    """Return the figures of all answers, and the figures and table of each suite."""
    suites = dict.fromkeys(answer.suite for answer in answers)
    of_suite = {suite: [a for a in answers if a.suite == suite] for suite in suites}
    return {
        **_figures(answers),
        'by_suite': {
            suite: {**_figures(those), 'instructed_against_reached': confusion(those)}
            for suite, those in of_suite.items()
        },
    }


def confusion(answers: Sequence[Answer]) -> dict[str, dict[str, int]]:
    """Count instructed against reached objects of one suite; every row has all columns.

    LIBERO-Spatial has two equal bowls, so its table counts whether the named one was reached.
    """
    if answers and answers[0].suite == 'libero_spatial':
        counts = Counter(_bowl(answer) for answer in answers)
        return {NAMED: {column: counts[column] for column in BOWLS}}
    counts = Counter((thing(a.instructed), thing(a.reached)) for a in answers)
    rows = sorted({row for row, _ in counts})
    found = {column for _, column in counts} - {NONE, *rows}
    columns = [*rows, *sorted(found), NONE]
    return {row: {column: counts[row, column] for column in columns} for row in rows}


def thing(name: str) -> str:
    """Turn an object's name into words: ``alphabet_soup_1`` -> ``alphabet soup``."""
    words, _, number = name.rpartition('_')
    return (words if number.isdecimal() else name).replace('_', ' ')


def table(document: dict[str, Any]) -> str:
    """Return a result as text."""
    lines = []
    for suite, part in document['by_suite'].items():
        lines += [f'{suite}: instructed (rows) against reached first (columns)']
        lines += _matrix(part['instructed_against_reached'])
        lines += [f'  {line}' for line in _rates(part)] + ['']
    lines += ['all', *(f'  {line}' for line in _rates(document))]
    lines += error_lines(document['errors'])
    if document['errors']:
        lines.append(f'{len(document["errors"])} scenes are errors and are not counted')
    return '\n'.join(lines)


def _figures(answers: Sequence[Answer]) -> dict[str, Any]:
    counts = {
        'right': sum(answer.right for answer in answers),
        'as_in_its_own_task': sum(answer.reached == answer.own for answer in answers),
        'fulfilled': sum(answer.fulfilled for answer in answers),
    }
    rates = {f'{name}_rate': rate_of(count, len(answers)) for name, count in counts.items()}
    return {'episodes': len(answers), **counts, **rates}


def _bowl(answer: Answer) -> str:
    if answer.reached == NONE:
        return NONE
    return {answer.instructed: NAMED, answer.own: OTHER}.get(answer.reached, ELSE)


def _matrix(rows: dict[str, dict[str, int]]) -> list[str]:
    """Format counts; heads have one word per line, and columns the width of the longest word."""
    if not rows:
        return []
    columns = list(next(iter(rows.values())))
    heads = [column.split() for column in columns]
    widths = [max(map(len, head)) + 2 for head in heads]
    height = max(map(len, heads))
    first = max(map(len, rows)) + 2
    lines = []
    for line in range(height):
        words = [([''] * height + head)[line + len(head)] for head in heads]
        pairs = zip(words, widths, strict=True)
        lines.append(' ' * (first + 2) + ''.join(f'{word:>{width}}' for word, width in pairs))
    for name, row in rows.items():
        counts = zip(row.values(), widths, strict=True)
        cells = ''.join(f'{count or ".":>{width}}' for count, width in counts)
        lines.append(f'  {name:<{first}}{cells}')
    return lines


def _rates(part: dict[str, Any]) -> list[str]:
    lines = []
    for name, words in (
        ('right', 'reached what it was told'),
        ('as_in_its_own_task', "reached its own task's object"),
        ('fulfilled', 'fulfilled the request'),
    ):
        rate = part[f'{name}_rate']
        text = f'{words:<30}{part[name]:>4} of {part["episodes"]}'
        if rate['rate'] is not None:
            text += f'  {rate["rate"]:6.1%}   95 % interval {rate["low"]:.1%} to {rate["high"]:.1%}'
        lines.append(text)
    return lines


@dataclass(frozen=True)
class Answer:
    """Result of one request.

    :param instructed: The object that the instruction names, such as ``milk_1``.
    :param own: The object that the task's own instruction names.
    :param reached: The first object that both fingers touched or that was lifted by 2 cm.
    :param fulfilled: Whether the goal was reached within the suite's limit of steps.
    """

    suite: str
    task: int
    init_state: int
    seed: int
    instruction: str
    instructed: str
    own: str
    reached: str
    fulfilled: bool
    steps: int

    @property
    def right(self) -> bool:
        """Whether the hand reached the instructed object."""
        return self.reached == self.instructed
