"""Reads an MCAP file whose end is missing, up to the last whole record; finds damage inside one.

A recorder that was killed, or a copy that was broken off, leaves such a file; rosbags refuses it.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, BinaryIO

MAGIC = b'\x89MCAP0\r\n'
# DataEnd without a checksum, a footer without a summary, and the magic
FILE_END = b'\x0f\x04' + bytes(11) + b'\x02\x14' + bytes(27) + MAGIC
_HEADER = 9  # bytes: opcode and length
_FOOTER, _CHUNK, _DATA_END = 2, 6, 15  # opcodes; of the format's others none is higher
_IN_CHUNK = (3, 4, 5)  # schema, channel, message


def damage_of(bag: Path) -> list[str]:
    """Return a line for each MCAP file, of a bag's folder or itself, that is not whole."""
    files = sorted(bag.glob('*.mcap')) if bag.is_dir() else [bag]
    return [line for file in files for line in (_cut_off(file), _damaged_inside(file)) if line]


def _cut_off(path: Path) -> str:
    """Return one line if an MCAP file's end is missing; empty if it is whole, or no MCAP file."""
    length = _whole_length(path)
    if length is None:
        return ''
    lost = path.stat().st_size - length
    return f'{path}: its end is missing; it is read up to byte {length}, {lost} bytes are lost'


def _damaged_inside(path: Path) -> str:
    """Return one line if records in the middle of a whole MCAP file are damaged; empty if none are.

    Readers pass over zeros in silence. Damage within one message, or a compressed chunk, is not
    looked for.
    """
    if not _begins(path) or not _ends(path):
        return ''
    with path.open('rb') as file:
        place = _whole_until(file, path.stat().st_size)
        file.seek(place)
        if file.read(1) == bytes([_DATA_END]):
            return ''
    return f'{path}: is damaged behind byte {place}; messages may be missing there'


def readable(path: Path) -> Path:
    """Return a path that opens as a whole file: the same one, or up to its last whole record."""
    length = _whole_length(path)
    if length is None:
        return path
    found = _CutOffPath(path)
    found.length = length
    return found


class _CutOffPath(type(Path())):
    """A path whose file ends at ``length``, followed by a proper end."""

    def open(self, *_: Any, **__: Any) -> io.BufferedReader:
        return io.BufferedReader(_Ended(self, self.length))


class _Ended(io.RawIOBase):
    """The first bytes of a file, followed by a proper end."""

    def __init__(self, path: Path, length: int) -> None:
        self._file = io.FileIO(path)
        self._length, self._at = length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = (0, self._at, self._length + len(FILE_END))[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        room = memoryview(buffer)
        if self._at < self._length:
            self._file.seek(self._at)
            count = self._file.readinto(room[: self._length - self._at])
        else:
            rest = FILE_END[self._at - self._length :][: len(room)]
            room[: len(rest)] = rest
            count = len(rest)
        self._at += count
        return count

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _whole_length(path: Path) -> int | None:
    """Return the length of the whole records [bytes]; None if nothing is missing."""
    # what does not begin as MCAP is not cut off, but something else: rosbags says what
    if not _begins(path) or _ends(path):
        return None
    with path.open('rb') as file:
        return _whole_until(file, path.stat().st_size)


def _begins(path: Path) -> bool:
    if path.suffix != '.mcap' or not path.is_file():
        return False
    with path.open('rb') as file:
        return file.read(len(MAGIC)) == MAGIC


def _ends(path: Path) -> bool:
    if path.stat().st_size < len(FILE_END):
        return False
    with path.open('rb') as file:
        file.seek(-len(MAGIC), io.SEEK_END)
        return file.read() == MAGIC


def _whole_until(file: BinaryIO, size: int) -> int:
    """Return where the first record begins that is not whole, or ends the data."""
    place = len(MAGIC)
    while True:
        file.seek(place)
        header = file.read(_HEADER)
        following = place + _HEADER + int.from_bytes(header[1:], 'little')
        if len(header) < _HEADER or following > size:
            return place
        if not 0 < header[0] < _DATA_END or header[0] == _FOOTER:
            return place
        if header[0] == _CHUNK and not _whole_chunk(file, following):
            return place
        place = following


def _whole_chunk(file: BinaryIO, end: int) -> bool:
    """Return whether a chunk's records fill it: a power cut may leave zeros in their place.

    :param file: Behind the header of the chunk's record.
    :param end: Of that record.
    """
    file.seek(28, io.SEEK_CUR)  # times, size and checksum
    compression = file.read(int.from_bytes(file.read(4), 'little'))
    place = file.tell() + 8
    while not compression and place < end:
        file.seek(place)
        header = file.read(_HEADER)
        if header[0] not in _IN_CHUNK:
            return False
        place += _HEADER + int.from_bytes(header[1:], 'little')
    return bool(compression) or place == end
