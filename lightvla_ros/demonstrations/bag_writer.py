"""Writes messages into a row of MCAP bags that are whole after every flush: a flight recorder.

Each piece is a bag of rosbag2: a folder with one MCAP file and, once it is finished,
``metadata.yaml``. A file is complete at any time: its end is written after each flush, and the next
chunk takes its place. So whoever is killed leaves a file that every reader of MCAP reads.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from lightvla_ros.demonstrations.cut_off_mcap import FILE_END
from lightvla_ros.errors import LightVLAError

PIECES = 8  # of a ring or a budget: what is deleted at once is an eighth of it
LONGEST_PIECE = 3600.0  # s
STEP_BACK = 1_000_000_000  # ns; a clock that goes back by more begins a new piece
PICTURES = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')
ROOM = 4096  # bytes around the messages, roughly


class RecordingError(LightVLAError):
    """A recording that cannot be begun or continued; one line says why, and what to do."""


@dataclass(frozen=True)
class Kept:
    """How much is kept.

    :param seconds: A ring of at least this length; 0 keeps everything.
    :param bytes: The most that the folder of all recordings may hold. A ring then becomes shorter,
        and a whole recording ends.
    """

    seconds: float
    bytes: int


class BagWriter:
    """Writes one recording. Not thread-safe.

    :param folder: Of all recordings; this one's pieces are ``DATE/DATE_000`` and so on. What an
        earlier recording left there counts, but is never deleted.
    :param definitions: Text of the message types that rosbags does not know, by name
        (``package/msg/Type``).
    :raises RecordingError: When rosbags is not installed, or the folder cannot be written or is
        full already.
    """

    def __init__(self, folder: Path, kept: Kept, definitions: Mapping[str, str]) -> None:
        try:
            from rosbags.rosbag2 import StoragePlugin, Writer
            from rosbags.typesys import Stores, get_types_from_msg, get_typestore
        except ImportError:
            raise RecordingError(
                'recording needs the package rosbags; install it: pip install lightvla_ros[record]'
            ) from None
        self._new = lambda path: Writer(path, version=9, storage_plugin=StoragePlugin.MCAP)
        self._types = get_typestore(Stores.ROS2_JAZZY)
        for name, text in definitions.items():
            self._types.register(get_types_from_msg(text, name))
        self._kept = kept
        self._finished: deque[tuple[Path, float, int]] = deque()  # path, end (steady), bytes
        self._pieces = self._size = self._stamp = 0
        self._writer: Any = None
        self._latched: dict[str, tuple[str, bytes]] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._others = sum(file.stat().st_size for file in folder.rglob('*') if file.is_file())
            self.folder = _new_folder(folder)
        except OSError as error:
            raise RecordingError(
                f'{folder}: cannot be written ({error.strerror}); choose another record_folder'
            ) from None
        self._room_left(ROOM)

    @property
    def bytes(self) -> int:
        """Size of this recording [bytes]."""
        return sum(size for _, _, size in self._finished) + self._size

    def write(self, topic: str, kind: str, stamp: int, data: bytes, latched: bool = False) -> None:
        """Write a message.

        :param kind: Message type, ``package/msg/Type``.
        :param stamp: When it was received [ns, ROS time].
        :param data: CDR.
        :param latched: Whether the newest one is written again at the beginning of each piece, so
            that a piece can be understood alone.
        :raises RecordingError: When a whole recording has used up its budget.
        :raises OSError: When the disk is full or gone.
        """
        if latched:
            self._latched[topic] = kind, data
        if self._writer is None or stamp < self._stamp - STEP_BACK or self._long():
            self._finish()
            self._begin(stamp, topic)
        self._write(topic, kind, stamp, data)

    def flush(self) -> None:
        """Give everything to the operating system, and end the file properly for now.

        :raises OSError: When the disk is full or gone.
        """
        storage = self._writer.storage if self._writer else None
        if storage is not None and storage.chunk.msgs:
            storage.close_chunk()
            self._end_for_now()

    def close(self) -> None:
        """Finish the last piece.

        :raises OSError: When the disk is full or gone; the file is whole up to the last flush.
        """
        self._finish()

    def _begin(self, stamp: int, topic: str) -> None:
        path = self.folder / f'{self.folder.name}_{self._pieces:03d}'
        self._pieces += 1
        self._writer, self._connections = self._new(path), {}
        self._writer.open()
        self._path, self._stamp, self._began = path, stamp, time.monotonic()
        self._ends, self._size = 0, ROOM
        for name, (kind, data) in self._latched.items():
            if name != topic:
                self._write(name, kind, stamp, data)

    def _write(self, topic: str, kind: str, stamp: int, data: bytes) -> None:
        self._room_left(len(data) + ROOM)
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic, kind, typestore=self._types
            )
        if kind not in PICTURES:
            data = self._without_rest(kind, data)
        # each a little later than the one before, so that their order is kept by every reader
        self._stamp = max(stamp, self._stamp + 1)
        self._writer.write(self._connections[topic], self._stamp, data)
        self._size += len(data) + 31  # of the record around it
        if len(self._writer.storage.chunks) != self._ends:
            self._end_for_now()

    def _without_rest(self, kind: str, data: bytes) -> bytes:
        """Cut off what rclpy's ``serialize_message`` appends: it counts with full sequences."""
        definition = self._types.get_msgdef(kind)
        _, length = definition.deserialize_cdr_le(data[4:], 0, definition.cls, self._types)
        return data[: 4 + length]

    def _end_for_now(self) -> None:
        storage = self._writer.storage
        self._ends = len(storage.chunks)
        place = storage.bio.tell()
        storage.bio.write(FILE_END)
        storage.bio.flush()
        storage.bio.seek(place)

    def _long(self) -> bool:
        """Return whether the piece is to be ended, and delete what is older than the ring."""
        now, ring = time.monotonic(), self._kept.seconds
        while ring and self._finished and now - self._finished[0][1] > ring:
            self._delete_oldest()
        longest = min(ring / PIECES, LONGEST_PIECE) if ring else LONGEST_PIECE
        return now - self._began > longest or self._size > self._kept.bytes / PIECES

    def _room_left(self, needed: int) -> None:
        """Delete the oldest pieces of a ring until there is room.

        :raises RecordingError: When there is none.
        """
        while self._others + self.bytes + needed > self._kept.bytes:
            if not (self._kept.seconds and self._finished):
                used = f'{(self._others + self.bytes) / 1e9:.2f} GB'
                raise RecordingError(
                    f'{self.folder.parent}: holds {used}, and record_budget is '
                    f'{self._kept.bytes / 1e9:.2f} GB; remove old recordings, or allow more'
                )
            self._delete_oldest()

    def _delete_oldest(self) -> None:
        path, _, _ = self._finished.popleft()
        for file in path.iterdir():
            file.unlink()
        path.rmdir()

    def _finish(self) -> None:
        if self._writer is None:
            return
        writer, self._writer = self._writer, None
        size, self._size = self._size, 0
        if not writer.storage.chunk.msgs and not writer.storage.chunks:
            writer.abort()
            return
        writer.close()
        self._finished.append((self._path, time.monotonic(), size))


def _new_folder(folder: Path) -> Path:
    """Make a folder that is named after the time, and after a number if there is one already."""
    name = f'{datetime.now():%Y%m%dT%H%M%S}'
    for number in itertools.count():
        found = folder / (f'{name}_{number}' if number else name)
        with suppress(FileExistsError):
            found.mkdir()
            return found
    raise AssertionError
