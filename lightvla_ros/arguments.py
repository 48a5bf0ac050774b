"""Numbers on a command line: a wrong one is exit code 2, before anything runs."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Iterable

from lightvla_ros.contract.libero import INIT_STATES, TASKS
from lightvla_ros.errors import ArgumentError

LARGEST_SEED = 2**31 - 1
MOST = 10_000  # numbers in a list; a slip of the finger must not fill the memory


def parse_range(text: str) -> tuple[int, ...]:
    """Parse ``0-3,7`` -> (0, 1, 2, 3, 7).

    :raises argparse.ArgumentTypeError: When it is no such list, or names a number twice.
    """
    numbers: list[int] = []
    for part in text.split(','):
        match = re.fullmatch(r'(\d{1,9})(?:-(\d{1,9}))?', part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if first > last:
            raise argparse.ArgumentTypeError(f'{text!r} is no list such as 0-3,7')
        if last - first >= MOST:
            raise argparse.ArgumentTypeError(f'{text!r} are more than {MOST} numbers')
        numbers.extend(range(first, last + 1))
    if len(set(numbers)) < len(numbers):
        raise argparse.ArgumentTypeError(f'{text!r} names a number twice')
    return tuple(numbers)


def parse_count(text: str) -> int:
    """Parse a whole number above 0.

    :raises argparse.ArgumentTypeError: When it is none.
    """
    if not re.fullmatch(r'\d{1,18}', text, re.ASCII) or int(text) == 0:
        raise argparse.ArgumentTypeError(f'{text!r} is no whole number above 0')
    return int(text)


def parse_seed(text: str) -> int:
    """Parse a whole number from 0 to 2147483647.

    :raises argparse.ArgumentTypeError: When it is none.
    """
    if not re.fullmatch(r'\d{1,18}', text, re.ASCII) or int(text) > LARGEST_SEED:
        raise argparse.ArgumentTypeError(f'{text!r} is no whole number from 0 to {LARGEST_SEED}')
    return int(text)


def number(low: float, high: float) -> Callable[[str], float]:
    """Return what parses a number from ``low`` to ``high``.

    It raises :class:`argparse.ArgumentTypeError` when the text is none.
    """

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:  # also for NaN
            raise argparse.ArgumentTypeError(f'{text!r} is no number from {low:g} to {high:g}')
        return value

    return parse


def check_episodes(
    suites: Iterable[str], tasks: Iterable[int], inits: Iterable[int] = (0,)
) -> None:
    """See that LIBERO has what is asked for.

    :raises ArgumentError: Naming the first task or saved initial state that there is not.
    """
    for suite in suites:
        if over := [task for task in tasks if task >= TASKS[suite]]:
            raise ArgumentError(
                f'--tasks: {suite} has the tasks 0 to {TASKS[suite] - 1}, not {over[0]}'
            )
    if over := [init for init in inits if init >= INIT_STATES]:
        raise ArgumentError(
            f'--inits: a task has the saved initial states 0 to {INIT_STATES - 1}, not {over[0]}'
        )
