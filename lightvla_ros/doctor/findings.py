"""What a check found: pass, warn or fail, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

PASS, WARN, FAIL = 'pass', 'warn', 'fail'
SUBJECT_WIDTH = 20  # characters


@dataclass(frozen=True)
class Finding:
    """One line of a report.

    :param level: ``pass``; ``warn`` for what may be wrong, or could not be checked; ``fail`` for
        what keeps the robot from moving, or makes it move wrongly.
    :param subject: What was looked at: a library, a camera, a topic.
    :param text: What was found, with figures.
    :param cure: What to do; empty for ``pass``.
    """

    level: str
    subject: str
    text: str
    cure: str = ''


def passed(subject: str, text: str) -> Finding:
    """Return a finding of something that is right."""
    return Finding(PASS, subject, text)


def warned(subject: str, text: str, cure: str) -> Finding:
    """Return a finding of something that may be wrong."""
    return Finding(WARN, subject, text, cure)


def failed(subject: str, text: str, cure: str) -> Finding:
    """Return a finding of something that is wrong."""
    return Finding(FAIL, subject, text, cure)


def report(findings: Sequence[Finding]) -> str:
    """Return the text of a report: a line for each finding, and one below it for what to do."""
    lines = []
    for each in findings:
        shown = each.level if each.level == PASS else each.level.upper()
        lines.append(f'{shown}  {each.subject:{SUBJECT_WIDTH}}  {each.text}')
        if each.cure:
            lines.append(f'{"":{6 + SUBJECT_WIDTH}}  -> {each.cure}')
    counts = [f'{_count(findings, level)} {level}' for level in (PASS, WARN, FAIL)]
    return '\n'.join([*lines, ', '.join(counts)])


def document(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return a report in plain values, for JSON."""
    return {
        'passed': not _count(findings, FAIL),
        'findings': [asdict(each) for each in findings],
    }


def exit_code(findings: Sequence[Finding]) -> int:
    """Return 1 when a finding is ``fail``, else 0: warnings do not change it."""
    return int(_count(findings, FAIL) > 0)


def _count(findings: Sequence[Finding], level: str) -> int:
    return sum(each.level == level for each in findings)
