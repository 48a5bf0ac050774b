"""The journal of an evaluation: each finished episode is appended, so that none is run twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lightvla_ros.errors import EvaluationError, one_line
from lightvla_ros.evaluate.episodes import EpisodeRecord
from lightvla_ros.files import append


class Journal:
    """A file of JSON lines: first a header with all that affects outcomes, then the episodes.

    The process that writes it holds the result's lock (``files.one_writer``). The list of episodes
    is not in the header, so a journal can be continued with more episodes.

    :param header: Policy, conditions and versions; a journal with another header is refused.
    :param kind: Class of the records, with ``spec`` (what identifies one), ``as_dict`` and
        ``from_dict``.
    :raises EvaluationError: When the file has another header or is damaged.
    :raises WriteError: When the disk is full.
    """

    def __init__(self, path: Path, header: dict[str, Any], kind: Any = EpisodeRecord) -> None:
        self._path = path
        self._kind = kind
        self.records: dict[Any, Any] = {}  # by spec
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open('a+b', buffering=0)
        try:
            self._begin(header)
        except BaseException:
            self._file.close()
            raise

    def add(self, record: Any) -> None:
        """Append an episode; it is stored on the disk when this returns."""
        self.records[record.spec] = record
        self._write(record.as_dict())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self, header: dict[str, Any]) -> None:
        try:
            lines = self._whole_lines()
            if not lines:
                self._write(header)
                return
            found, *episodes = (json.loads(line) for line in lines)
            records = [self._kind.from_dict(fields) for fields in episodes]
        except (ValueError, TypeError) as error:
            raise EvaluationError(
                f'{self._path}: is not a journal ({one_line(error)}); remove it or give another '
                '--json'
            ) from None
        if difference := first_difference(found, header):
            raise EvaluationError(
                f'{self._path}: was begun with {difference}; use the same setting, remove the '
                'journal, or give another --json'
            )
        self.records = {record.spec: record for record in records}  # the last record counts

    def _whole_lines(self) -> list[str]:
        """Read all lines, and cut off an incomplete last line, which a crash may leave.

        :raises UnicodeDecodeError: When the file is not text; then it stays unchanged.
        """
        self._file.seek(0)
        data = self._file.read()
        whole = data[: data.rfind(b'\n') + 1]
        lines = whole.decode().splitlines()
        if whole != data:
            self._file.truncate(len(whole))
        return lines

    def _write(self, fields: dict[str, Any]) -> None:
        append(self._file, json.dumps(fields).encode() + b'\n')


def first_difference(these: Any, those: Any, name: str = '') -> str:
    """Return the first difference of two documents as ``NAME 1, not 2``; empty if equal."""
    if isinstance(these, dict) and isinstance(those, dict):
        for key in {**those, **these}:
            inner = f'{name}.{key}' if name else key
            if found := first_difference(these.get(key), those.get(key), inner):
                return found
        return ''
    return '' if these == those else f'{name or "another header"} {these!r}, not {those!r}'
