"""Text of others in one line: libraries' messages, which fill screens, and what strangers send."""

from __future__ import annotations

LIMIT = 120


def one_line(text: object) -> str:
    """Return a message as one line of at most 300 characters."""
    return ' '.join(str(text).split())[:300]


def quoted(text: str) -> str:
    """Return untrusted text of any length in quotes, as one line of at most 120 characters.

    What does not fit is cut, and only the beginning is looked at: a frame_id may have 3 MB. Line
    ends, escape sequences, direction marks and all else that is not printable is escaped.
    """
    shown = repr(text[: LIMIT + 1])
    return shown if len(shown) <= LIMIT else f'{shown[: LIMIT - 2]}…{shown[0]}'
