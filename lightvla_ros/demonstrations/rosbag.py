"""Bags of rosbag2 (MCAP or SQLite), by a data YAML that maps topics; one bag is one episode.

A bag has messages with stamps, not rows. Row k lies k control periods after the first set of
images. Its pictures are the set nearest to that time, paired as ``runtime/inbox.py`` pairs them:
each camera gives the first image that is not older than the set's oldest one. States are
interpolated at the stamp of the set's oldest image, where the node takes the nearest message. The
row's command is the last one before the next row, relative to that same state.
"""

from __future__ import annotations

import itertools
import struct
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightvla_ros.demonstrations.mapping import Mapping, refuse_missing
from lightvla_ros.demonstrations.recording import Column, Recorded
from lightvla_ros.errors import DamagedFileError, DemonstrationError, ImageError, one_line
from lightvla_ros.policy.compressed_images import CompressedPicture
from lightvla_ros.policy.images import RawPicture

EPISODE = 'bag'
SET_BACK = 1_000_000_000  # ns, as in the inbox; what is older by less is a repetition
POSE = ('x', 'y', 'z', 'qx', 'qy', 'qz', 'qw')
TWIST = ('x', 'y', 'z', 'rx', 'ry', 'rz')
RAW, COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'


@dataclass(frozen=True)
class Series:
    """A topic's numbers over time.

    :param stamps: int64 [M] ns, ascending.
    :param values: float64 [M, n].
    :param posed: Whether columns 3 to 6 are a quaternion x y z w.
    """

    stamps: np.ndarray
    values: np.ndarray
    labels: tuple[str, ...]
    posed: bool


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
    with _opened(path) as reader:
        yield Bag(path, mapping, reader)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from rosbags.highlevel import AnyReader  # of the extra `data`
    from rosbags.typesys import Stores, get_typestore

    types = get_typestore(Stores.ROS2_JAZZY)  # for bags without definitions
    try:
        with AnyReader([path], default_typestore=types) as reader:
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
        self._rows: Rows | None = None

    def names(self) -> list[str]:
        """Return the one episode's name."""
        return [EPISODE]

    def read(self, name: str) -> Recorded:
        """Read the numbers, at the rows."""
        mapping = self._mapping
        topics = tuple(dict.fromkeys((*mapping.state_names, *mapping.action_names)))
        series = {topic: self._series(topic) for topic in topics}
        images = {each.name: self._images(each.name) for each in mapping.cameras.values()}
        rows = self._rows = _rows(images, series, mapping)
        states = {n: _interpolated(series[n], rows.stamps) for n in mapping.state_names}
        actions = {n: self._held(n, series[n], rows.stamps) for n in mapping.action_names}
        return Recorded(
            self._instruction(),
            states,
            actions,
            (rows.stamps - rows.stamps[0]) * 1e-9,
            rows.observed,
            {topic: each.size for topic, each in images.items()},
        )

    def pictures(self, name: str, camera: str, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Yield a camera's pictures of some observed rows."""
        if self._rows is None:
            self.read(name)
        numbers = self._rows.images[camera][np.searchsorted(self._rows.observed, rows)].tolist()
        waiting = 0
        for number, (_, _, data) in enumerate(self._messages(camera)):
            # two rows may not share an image, so that the numbers ascend
            if waiting < len(numbers) and number == numbers[waiting]:
                yield self._picture(camera, data)
                waiting += 1

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
            if _accept(topic, _header_stamp(topic, data), stamps):
                numbers.append(number)
        if size is None:
            raise DemonstrationError(f'{topic}: has no images')
        return Images(np.array(stamps, np.int64), np.array(numbers, np.int64), size)

    def _series(self, topic: str) -> Series:
        """Read a topic's numbers."""
        kind = self._topics[topic].msgtype
        if kind not in _READERS:
            raise DemonstrationError(
                f'{topic}: is {kind}; numbers are read from {", ".join(sorted(_READERS))}'
            )
        read, labels, headed = _READERS[kind]
        stamps: list[int] = []
        values: list[Any] = []
        for _, received, data in self._messages(topic):
            message = self._reader.deserialize(data, kind)
            stamp = _stamp(message.header.stamp) if headed else received
            if labels is None:
                labels = tuple(message.name)
            if _accept(topic, stamp, stamps):
                row = read(message)
                if kind == _JOINTS and tuple(message.name) != labels:
                    row = _by_name(topic, message, labels)
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
    with _opened(path) as reader:
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


def _accept(topic: str, stamp: int, stamps: list[int]) -> bool:
    """Append a stamp that is newer than all before; refuse a clock that was set back."""
    if stamp <= 0:
        raise DemonstrationError(f'{topic}: a message has no stamp (0)')
    if stamps and stamp < stamps[-1] - SET_BACK:
        back = (stamps[-1] - stamp) * 1e-9
        raise DemonstrationError(f'{topic}: time goes back by {back:.2f} s; cut the bag there')
    if stamps and stamp <= stamps[-1]:
        return False
    stamps.append(stamp)
    return True


def _header_stamp(topic: str, data: bytes) -> int:
    """Read the stamp of a message that begins with a header, without decoding the rest."""
    if len(data) < 12:
        raise DemonstrationError(f'{topic}: a message of {len(data)} bytes is cut off')
    seconds, nanoseconds = struct.unpack_from('<iI' if data[1] & 1 else '>iI', data, 4)
    return seconds * 10**9 + nanoseconds


def _stamp(time: Any) -> int:
    return time.sec * 10**9 + time.nanosec


def _pose(pose: Any) -> list[float]:
    place = getattr(pose, 'position', None) or pose.translation
    turn = getattr(pose, 'orientation', None) or pose.rotation
    return [place.x, place.y, place.z, turn.x, turn.y, turn.z, turn.w]


def _twist(twist: Any) -> list[float]:
    speed, turn = twist.linear, twist.angular
    return [speed.x, speed.y, speed.z, turn.x, turn.y, turn.z]


def _by_name(topic: str, message: Any, labels: tuple[str, ...]) -> list[float]:
    """Return the joints of a message whose order is another than the first one's."""
    found = dict(zip(message.name, message.position, strict=False))
    if found.keys() != set(labels):
        raise DemonstrationError(f'{topic}: its messages have different joints; record one robot')
    return [found[label] for label in labels]


_JOINTS = 'sensor_msgs/msg/JointState'
# How a message's numbers are read, their labels (None: the message's own), whether it has a header
_READERS: dict[str, tuple[Callable[[Any], Any], tuple[str, ...] | None, bool]] = {
    'geometry_msgs/msg/PoseStamped': (lambda message: _pose(message.pose), POSE, True),
    'geometry_msgs/msg/TransformStamped': (lambda message: _pose(message.transform), POSE, True),
    'geometry_msgs/msg/TwistStamped': (lambda message: _twist(message.twist), TWIST, True),
    'geometry_msgs/msg/Twist': (_twist, TWIST, False),
    _JOINTS: (lambda message: message.position, None, True),
    'std_msgs/msg/Bool': (lambda message: [float(message.data)], ('data',), False),
    'std_msgs/msg/Float32': (lambda message: [message.data], ('data',), False),
    'std_msgs/msg/Float64': (lambda message: [message.data], ('data',), False),
    'std_msgs/msg/Float32MultiArray': (lambda message: message.data, (), False),
    'std_msgs/msg/Float64MultiArray': (lambda message: message.data, (), False),
}
