"""Bags of rosbag2 (MCAP or SQLite), by a data YAML that maps topics.

One bag is one episode; where the commands are a policy node's chunks, each of their runs is one.

A bag has messages with stamps, not rows. Row k lies k control periods after the first set of
images. Its pictures are the set nearest to that time, paired as ``runtime/inbox.py`` pairs them:
each camera gives the first image that is not older than the set's oldest one. States are
interpolated at the stamp of the set's oldest image, where the node takes the nearest message. The
row's command is the last one before the next row, relative to that same state.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightvla_ros.demonstrations.bag_messages import (
    JOINTS,
    POSE,
    READERS,
    accept,
    by_name,
    header_stamp,
    stamp_of,
)
from lightvla_ros.demonstrations.chunk_commands import CHUNK, Run, Series, runs_in
from lightvla_ros.demonstrations.cut_off_mcap import readable
from lightvla_ros.demonstrations.mapping import Mapping, refuse_missing
from lightvla_ros.demonstrations.recording import Column, Recorded
from lightvla_ros.errors import DamagedFileError, DemonstrationError, ImageError, one_line
from lightvla_ros.policy.compressed_images import CompressedPicture
from lightvla_ros.policy.images import RawPicture

EPISODE = 'bag'
RAW, COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'


@dataclass(frozen=True)
class Images:
    """A camera's images: stamps int64 [M] ns, ascending, and the number of each in its topic."""

    stamps: np.ndarray
    numbers: np.ndarray
    size: tuple[int, int]


@dataclass(frozen=True)
class Rows:
    """Rows of a bag.

    :param stamps: int64 [T] ns.
    :param observed: int64 [R], the rows with pictures.
    :param images: By topic: int64 [R], the image of each of those, by its number in the topic.
    """

    stamps: np.ndarray
    observed: np.ndarray
    images: dict[str, np.ndarray]


@contextmanager
def open_bag(path: Path, mapping: Mapping) -> Iterator[Bag]:
    """Open a bag: a folder with metadata.yaml, or one file of MCAP or SQLite.

    :raises DamagedFileError: When it cannot be read.
    :raises DemonstrationError: When it lacks a topic of the mapping.
    """
    with opened(path) as reader:
        yield Bag(path, mapping, reader)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a bag for rosbags' reader; of a file whose end is missing, what there is.

    :raises DamagedFileError: When it cannot be read.
    """
    from rosbags.highlevel import AnyReader  # of the extra `data`
    from rosbags.typesys import Stores, get_typestore

    types = get_typestore(Stores.ROS2_JAZZY)  # for bags without definitions
    try:
        with AnyReader([readable(path)], default_typestore=types) as reader:
            yield reader
    except DemonstrationError:
        raise
    # rosbags raises its own errors, and struct's, zstd's and apsw's where data are damaged
    except Exception as error:
        raise DamagedFileError(
            path, f'{type(error).__name__}: {one_line(error)}', 'a bag'
        ) from None


class Bag:
    """An open bag; see :class:`~lightvla_ros.demonstrations.recording.Recording`."""

    def __init__(self, path: Path, mapping: Mapping, reader: Any) -> None:
        self._path, self._mapping, self._reader = path, mapping, reader
        self._topics = {each.topic: each for each in reader.connections}
        cameras = [each.name for each in mapping.cameras.values()]
        wanted = [*cameras, *mapping.state_names, *mapping.action_names]
        if mapping.rosbag.instruction:
            wanted.append(mapping.rosbag.instruction)
        for topic in dict.fromkeys(wanted):
            if topic not in self._topics:
                raise refuse_missing(str(path), topic, 'topic', self._topics)
        for topic in cameras:
            if self._topics[topic].msgtype not in (RAW, COMPRESSED):
                raise DemonstrationError(
                    f'{path}: {topic} is {self._topics[topic].msgtype}; a camera is {RAW} or '
                    f'{COMPRESSED}'
                )
        self._rows: dict[str, Rows] = {}
        self._runs: dict[str, Run] = {}
        for topic in mapping.action_names:
            if self._topics[topic].msgtype == CHUNK:
                self._runs = self._runs_of(topic)

    def names(self) -> list[str]:
        """Return the names of the runs, or the one episode's name."""
        return list(self._runs) or [EPISODE]

    def read(self, name: str) -> Recorded:
        """Read the numbers, at the rows."""
        mapping = self._mapping
        run = self._runs.get(name)
        topics = tuple(dict.fromkeys((*mapping.state_names, *mapping.action_names)))
        series = {
            topic: self._series(topic) if run is None or topic != run.topic else run.series()
            for topic in topics
        }
        images = {each.name: self._images(each.name) for each in mapping.cameras.values()}
        if run is not None:
            images = {topic: _within(each, run) for topic, each in images.items()}
        rows = self._rows[name] = _rows(images, series, mapping)
        states = {n: _interpolated(series[n], rows.stamps) for n in mapping.state_names}
        actions = {n: self._held(n, series[n], rows.stamps) for n in mapping.action_names}
        return Recorded(
            self._instruction() if run is None else run.instruction,
            states,
            actions,
            (rows.stamps - rows.stamps[0]) * 1e-9,
            rows.observed,
            {topic: each.size for topic, each in images.items()},
        )

    def pictures(self, name: str, camera: str, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Yield a camera's pictures of some observed rows."""
        if name not in self._rows:
            self.read(name)
        found = self._rows[name]
        numbers = found.images[camera][np.searchsorted(found.observed, rows)].tolist()
        waiting = 0
        for number, (_, _, data) in enumerate(self._messages(camera)):
            # two rows may not share an image, so that the numbers ascend
            if waiting < len(numbers) and number == numbers[waiting]:
                yield self._picture(camera, data)
                waiting += 1

    def _runs_of(self, topic: str) -> dict[str, Run]:
        """Read the runs of a policy node's chunks, by name."""
        chunks = (self._reader.deserialize(data, CHUNK) for _, _, data in self._messages(topic))
        found = {f'run_{number:03d}': run for number, run in enumerate(runs_in(topic, chunks))}
        if not found:
            raise DemonstrationError(f'{self._path}: {topic}: has no chunks with steps')
        return found

    def _messages(self, topic: str) -> Iterator[tuple[Any, int, bytes]]:
        connections = [each for each in self._reader.connections if each.topic == topic]
        return self._reader.messages(connections)

    def _picture(self, topic: str, data: bytes) -> np.ndarray:
        """Decode a message as the node does."""
        kind = self._topics[topic].msgtype
        message = self._reader.deserialize(data, kind)
        pixels = message.data.tobytes()
        try:
            if kind == COMPRESSED:
                return CompressedPicture(pixels, message.format).decode()
            form = message.height, message.width, message.encoding, message.step
            return RawPicture(pixels, *form).decode()
        except ImageError as error:
            raise DemonstrationError(f'{topic}: {error}') from None

    def _images(self, topic: str) -> Images:
        """Read the stamps of a camera's images, and the size of the first."""
        stamps, numbers, size = [], [], None
        for number, (_, _, data) in enumerate(self._messages(topic)):
            if size is None:
                size = self._picture(topic, data).shape[:2]
            if accept(topic, header_stamp(topic, data), stamps):
                numbers.append(number)
        if size is None:
            raise DemonstrationError(f'{topic}: has no images')
        return Images(np.array(stamps, np.int64), np.array(numbers, np.int64), size)

    def _series(self, topic: str) -> Series:
        """Read a topic's numbers."""
        kind = self._topics[topic].msgtype
        if kind not in READERS:
            raise DemonstrationError(
                f'{topic}: is {kind}; numbers are read from {", ".join(sorted(READERS))}'
            )
        read, labels, headed = READERS[kind]
        stamps: list[int] = []
        values: list[Any] = []
        for _, received, data in self._messages(topic):
            message = self._reader.deserialize(data, kind)
            stamp = stamp_of(message.header.stamp) if headed else received
            if labels is None:
                labels = tuple(message.name)
            if accept(topic, stamp, stamps):
                row = read(message)
                if kind == JOINTS and tuple(message.name) != labels:
                    row = by_name(topic, message, labels)
                values.append(row)
        if not stamps:
            raise DemonstrationError(f'{topic}: has no messages')
        if len({len(row) for row in values}) > 1:
            raise DemonstrationError(f'{topic}: its messages have different numbers of numbers')
        found = np.array(values, np.float64)
        return Series(np.array(stamps, np.int64), found, labels or (), labels == POSE)

    def _held(self, topic: str, series: Series, stamps: np.ndarray) -> Column:
        """Return the last command before each next row."""
        period = round(1e9 / self._mapping.rate)
        index = np.searchsorted(series.stamps, stamps + period, side='left') - 1
        if (index < 0).any():
            raise DemonstrationError(f'{topic}: the first command comes after the first row')
        gaps = (stamps - series.stamps[index]) * 1e-9
        source, longest = self._mapping.action, self._mapping.rosbag.max_command_gap
        moving = [each.name for each in (source.translation, source.rotation) if each is not None]
        if source.kind == 'delta' and topic in moving and gaps.max() > longest:
            raise DemonstrationError(
                f'{topic}: no command for {gaps.max():.2f} s before row {gaps.argmax()} '
                f'(max_command_gap {longest:g} s); what the robot then did is not known: record '
                'zeros, or use kind: next_pose'
            )
        return Column(series.values[index], series.labels)

    def _instruction(self) -> str:
        topic = self._mapping.rosbag.instruction
        if not topic:
            return ''
        first = next(self._messages(topic), None)
        if first is None:
            raise DemonstrationError(f'{topic}: has no messages')
        return str(self._reader.deserialize(first[2], self._topics[topic].msgtype).data)


def topics_of(path: Path) -> Iterator[str]:
    """List a bag's topics with their types and rates; runs in the reading process.

    :raises DamagedFileError: When it cannot be read.
    """
    with opened(path) as reader:
        seconds = reader.duration * 1e-9
        for each in sorted(reader.connections, key=lambda connection: connection.topic):
            rate = f', {each.msgcount / seconds:.4g} Hz' if seconds else ''
            yield f'{each.topic}: {each.msgtype}, {each.msgcount} messages{rate}'


def bags_in(folder: Path) -> list[Path]:
    """List the bags in a folder, at any depth: folders with metadata.yaml, and lone files."""
    if (folder / 'metadata.yaml').is_file():
        return [folder]
    whole = {file.parent for file in folder.rglob('metadata.yaml')}
    lone = itertools.chain(folder.rglob('*.mcap'), folder.rglob('*.db3'))
    return sorted(whole | {file for file in lone if file.parent not in whole})


def _rows(images: dict[str, Images], series: dict[str, Series], mapping: Mapping) -> Rows:
    """Lay the rows over a bag's messages."""
    bag, period = mapping.rosbag, round(1e9 / mapping.rate)
    states = [series[name].stamps for name in mapping.state_names]
    commands = [series[name].stamps for name in mapping.action_names]
    last = min(each[-1] for each in states)
    # a row's command may still come until the next row
    first = max(*(each[0] for each in states), *(each[0] - period + 1 for each in commands))
    sets = [
        found
        for stamp in sorted({int(s) for each in images.values() for s in each.stamps})
        if first <= stamp <= last
        and (found := _set_at(stamp, images, round(bag.max_camera_skew * 1e9))) is not None
        and all(_distance(each, stamp) <= bag.max_state_skew * 1e9 for each in states)
    ]
    if not sets:
        raise DemonstrationError(
            'has no images of all cameras within max_camera_skew '
            f'({bag.max_camera_skew:g} s) and max_state_skew ({bag.max_state_skew:g} s) of a state'
        )
    begin, end = sets[0][0], sets[-1][0]
    stamps = begin + period * np.arange(round((end - begin) / period) + 1)
    of_sets = np.array([each[0] for each in sets])
    after = np.searchsorted(of_sets, stamps).clip(1, max(1, len(sets) - 1))
    after = np.minimum(after, len(sets) - 1)
    before = np.maximum(after - 1, 0)
    nearest = np.where(stamps - of_sets[before] <= of_sets[after] - stamps, before, after)
    near = np.abs(of_sets[nearest] - stamps) <= period / 2
    fresh = np.ones(len(stamps), bool)
    for topic in images:  # an image is used once; the camera was slow where it would be used again
        used = np.where(near, np.array([each[1][topic] for each in sets])[nearest], -1)
        fresh[1:] &= used[1:] > np.maximum.accumulate(used)[:-1]
    observed = np.flatnonzero(near & fresh)
    stamps = stamps.copy()
    stamps[observed] = of_sets[nearest[observed]]
    numbers = {
        topic: np.array([sets[each][1][topic] for each in nearest[observed]], np.int64)
        for topic in images
    }
    return Rows(stamps, observed, numbers)


def _set_at(stamp: int, images: dict[str, Images], skew: int) -> tuple[int, dict[str, int]] | None:
    """Pair images as the inbox does; None where a camera has none near enough."""
    numbers = {}
    for topic, each in images.items():
        index = bisect_left(each.stamps, stamp)
        if index == len(each.stamps) or each.stamps[index] - stamp > skew:
            return None
        numbers[topic] = int(each.numbers[index])
    return stamp, numbers


def _within(images: Images, run: Run) -> Images:
    """Return the images that were taken while a run's steps acted."""
    inside = (images.stamps > run.stamps[0] - run.period) & (images.stamps <= run.stamps[-1])
    return Images(images.stamps[inside], images.numbers[inside], images.size)


def _distance(stamps: np.ndarray, stamp: int) -> int:
    index = bisect_left(stamps, stamp)
    return min(abs(int(stamps[i]) - stamp) for i in (index - 1, index) if 0 <= i < len(stamps))


def _interpolated(series: Series, stamps: np.ndarray) -> Column:
    """Return a state's numbers at some stamps, linear between messages."""
    values = series.values
    if series.posed:  # q and -q are one rotation: between them lies none
        values = values.copy()
        signs = np.where((values[1:, 3:] * values[:-1, 3:]).sum(axis=1) < 0, -1.0, 1.0)
        values[1:, 3:] *= np.cumprod(signs)[:, None]
    at, begin = stamps - series.stamps[0], series.stamps - series.stamps[0]
    found = np.column_stack([np.interp(at, begin, each) for each in values.T])
    if series.posed:
        found[:, 3:] /= np.linalg.norm(found[:, 3:], axis=1, keepdims=True)
    return Column(found, series.labels)
