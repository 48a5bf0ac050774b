"""Opening HDF5 files and reading their text, with errors that name the file."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from lightvla_ros.errors import DamagedFileError, DemonstrationError, one_line


@contextlib.contextmanager
def open_file(path: Path) -> Iterator[h5py.File]:
    """Open a file for reading.

    :raises DamagedFileError: When it is missing, corrupt or not HDF5; also when damage is found
        while it is open.
    :raises DemonstrationError: When it is being written.
    """
    try:
        with h5py.File(path, 'r') as file:
            yield file
    except DemonstrationError:
        raise
    except BlockingIOError:
        raise DemonstrationError(
            f'{path}: another process writes it; wait for that, then run this again'
        ) from None
    # h5py raises nearly anything where data are damaged: TypeError for bytes as a name, KeyError
    # for a group that is listed and not there, ValueError for a float of no such format
    except Exception as error:
        raise DamagedFileError(path, f'{type(error).__name__}: {one_line(error)}') from None


def text_attribute(group: h5py.Group, name: str) -> str | None:
    """Read a text attribute; None where it is missing.

    :raises DemonstrationError: When it is something else.
    """
    value = group.attrs.get(name)
    if isinstance(value, bytes):
        value = value.decode('utf-8', 'replace')
    if value is not None and not isinstance(value, str):
        raise DemonstrationError(f'{_place(group)}: attribute {name} is no text: {one_line(value)}')
    return value


def json_attribute(group: h5py.Group, name: str) -> Any:
    """Read a JSON attribute; None where it is missing.

    :raises DemonstrationError: When it is not JSON.
    """
    text = text_attribute(group, name)
    try:
        return None if text is None else json.loads(text)
    except json.JSONDecodeError as error:
        raise DemonstrationError(f'{_place(group)}: attribute {name} is no JSON: {error}') from None


def number_attribute(group: h5py.Group, name: str) -> int | None:
    """Read a whole number; None where it is missing.

    :raises DemonstrationError: When it is something else.
    """
    value = group.attrs.get(name)
    try:
        return None if value is None else int(value)
    except (TypeError, ValueError):
        raise DemonstrationError(
            f'{_place(group)}: attribute {name} is no whole number: {one_line(value)}'
        ) from None


def _place(group: h5py.Group) -> str:
    return f'{group.file.filename}, {group.name}'
