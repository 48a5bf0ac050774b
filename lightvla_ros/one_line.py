"""Other libraries' messages, which fill screens, in one line."""

from __future__ import annotations


def one_line(text: object) -> str:
    """Return a message as one line of at most 300 characters."""
    return ' '.join(str(text).split())[:300]
