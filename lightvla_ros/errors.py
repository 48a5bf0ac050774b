"""The root of all our errors, and how one becomes a line of text."""

from __future__ import annotations


class LightVLAError(Exception):
    """Something that cannot be done. The message is one line: what is wrong, and what to do."""


class ArgumentError(LightVLAError):
    """Command-line arguments that cannot be, or not together; found before anything runs."""


def sentence(error: BaseException) -> str:
    """Return what an error says as one line: with its type, unless its text is a sentence itself.

    The texts of :class:`LightVLAError` are sentences; of an :class:`OSError` the line names the
    files and what the system says of them.
    """
    if isinstance(error, OSError):
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        text = ': '.join((' -> '.join(names), error.strerror)) if names and error.strerror else ''
        text = text or error.strerror or str(error) or type(error).__name__
    elif isinstance(error, LightVLAError):
        text = str(error)
    else:
        text = f'{type(error).__name__}: {error}'
    return ' '.join(text.split())
