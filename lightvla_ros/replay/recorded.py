"""Each inference of a recording, with the observation that the policy was given.

What cannot be read is left out, with a line that names file and topic; the rest is read.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lightvla_ros.contract import ACTION_SIZE
from lightvla_ros.demonstrations.bag_messages import header_stamp, stamp_of
from lightvla_ros.demonstrations.chunk_commands import CHUNK
from lightvla_ros.demonstrations.cut_off_mcap import damage_of
from lightvla_ros.demonstrations.rosbag import COMPRESSED, RAW, bags_in, opened
from lightvla_ros.errors import DemonstrationError, ImageError, one_line
from lightvla_ros.policy.compressed_images import CompressedPicture
from lightvla_ros.policy.images import RawPicture
from lightvla_ros.policy.observation import Observation
from lightvla_ros.policy.state import RobotState

INFERENCE = 'lightvla_ros/msg/Inference'
PARAMETERS = 'rcl_interfaces/msg/ParameterEvent'
PICTURES = 64  # kept per camera: the node itself acts on one of the newest 16
STEP_BACK = 1_000_000_000  # ns
STATE_SIZES = {'position': 3, 'quaternion': 4, 'fingers': 2}


@dataclass(frozen=True)
class Message:
    """A message as it lies in the recording: ``data`` is CDR, ``received`` in ns."""

    topic: str
    kind: str
    received: int
    data: bytes


@dataclass(frozen=True, eq=False)
class Inference:
    """What the policy was given, and what it answered.

    :param number: Counted over the whole recording, from 0.
    :param stamp: Of the observation [ns, ROS time].
    :param policy: Fingerprint of the policy's folder.
    :param kept: int64 [K], the kept patches.
    :param actions: float32 [N, 7], normalised.
    :param messages: The pictures and the inference itself, as recorded.
    """

    number: int
    stamp: int
    policy: str
    backend: str
    precision: str
    observation: Observation
    kept: np.ndarray
    actions: np.ndarray
    messages: tuple[Message, ...]


@dataclass(frozen=True)
class Hold:
    """A hold that the node published, as recorded."""

    reason: str
    message: Message


@dataclass
class Recording:
    """A recording: one MCAP file, a bag, or a folder of several pieces.

    :ivar parameters: The node's, the newest that were read.
    :ivar parameter_message: The message that they came in.
    :ivar types: rosbags' definitions of the recording's message types.
    :ivar read: Inferences that were read, with or without an answer.
    :ivar failed: Of these, those without an answer.
    """

    path: Path
    parameters: dict[str, Any] = field(default_factory=dict)
    parameter_message: Message | None = None
    types: Any = None
    read: int = 0
    failed: int = 0
    _notes: Counter[str] = field(default_factory=Counter)
    _pictures: dict[str, OrderedDict[int, Message]] = field(default_factory=dict)
    _stamp: int = 0

    @property
    def notes(self) -> list[str]:
        """One line for whatever was left out or looks wrong; complete once all was read."""
        return [
            f'{line} ({count} times)' if count > 1 else line for line, count in self._notes.items()
        ]

    def __iter__(self) -> Iterator[Inference | Hold]:
        """Read the inferences that have an answer, and the holds, in the order of the recording.

        :raises DemonstrationError: When there is no such file, or no inference in any.
        """
        if not self.path.exists():
            raise DemonstrationError(f'{self.path}: there is no such file or folder')
        pieces = bags_in(self.path) if self.path.is_dir() else [self.path]
        if not pieces:
            raise DemonstrationError(f'{self.path}: no recording (*.mcap) in this folder')
        for piece in pieces:
            try:
                yield from self._piece(piece)
            except DemonstrationError as error:
                self._notes[str(error)] += 1
        if not self.read:
            raise DemonstrationError('; '.join(self.notes) or f'{self.path}: has no inferences')

    def _piece(self, piece: Path) -> Iterator[Inference | Hold]:
        for line in damage_of(piece):
            self._notes[line] += 1
        with opened(piece) as reader:
            if INFERENCE not in {each.msgtype for each in reader.connections}:
                topics = ', '.join(sorted(each.topic for each in reader.connections))
                raise DemonstrationError(
                    f'{piece}: has no topic of the type {INFERENCE}, which a policy node writes '
                    f'with record:=true; there are: {topics or "none"}'
                )
            self.types = reader.typestore
            messages = reader.messages()
            while True:
                try:
                    connection, received, data = next(messages)
                except StopIteration:
                    return
                except Exception as error:  # rosbags', zstd's and struct's, where data are damaged
                    raise DemonstrationError(
                        f'{piece}: is damaged ({one_line(error)}); what follows there is not read'
                    ) from None
                message = Message(connection.topic, connection.msgtype, received, data)
                try:
                    found = self._message(piece, reader, message)
                except DemonstrationError as error:
                    self._notes[f'{piece}: {connection.topic}: {error}'] += 1
                    continue
                if found is not None:
                    yield found

    def _message(self, piece: Path, reader: Any, message: Message) -> Inference | Hold | None:
        kind = message.kind
        if kind in (RAW, COMPRESSED):
            kept = self._pictures.setdefault(message.topic, OrderedDict())
            # the first one counts: the node ignores a stamp that comes again
            kept.setdefault(header_stamp(message.topic, message.data), message)
            if len(kept) > PICTURES:
                kept.popitem(last=False)
            return None
        if kind not in (INFERENCE, CHUNK, PARAMETERS):
            return None
        try:
            content = reader.deserialize(message.data, kind)
        except Exception as error:
            raise DemonstrationError(f'a message cannot be read ({one_line(error)})') from None
        if kind == CHUNK:
            return None if content.steps else Hold(content.reason, message)
        if kind == PARAMETERS:
            self.parameter_message = message
            for each in content.new_parameters:
                self.parameters[each.name] = _value(each.value)
            return None
        return self._inference(piece, reader, message, content)

    def _inference(
        self, piece: Path, reader: Any, message: Message, content: Any
    ) -> Inference | None:
        number, self.read = self.read, self.read + 1
        stamp = stamp_of(content.header.stamp)
        if stamp < self._stamp - STEP_BACK:
            back = (self._stamp - stamp) * 1e-9
            line = f'{piece}: {message.topic}: time goes back by {back:.2f} s at inference {number}'
            self._notes[line] += 1
        self._stamp = stamp
        if content.error:
            self.failed += 1
            return None
        pictures = [
            self._picture(topic, stamp_of(each))
            for topic, each in zip(content.image_topics, content.image_stamps, strict=True)
        ]
        decoded = [self._decoded(reader, each) for each in pictures]
        actions = np.array(content.actions, np.float32)
        if not len(actions) or len(actions) % ACTION_SIZE or not np.isfinite(actions).all():
            raise DemonstrationError('the recorded actions are incomplete or not finite')
        return Inference(
            number=number,
            stamp=stamp,
            policy=content.policy,
            backend=content.backend,
            precision=content.precision,
            observation=Observation(
                dict(zip(content.cameras, decoded, strict=True)),
                content.instruction,
                _state(content),
            ),
            kept=np.array(content.kept_patches, np.int64),
            actions=actions.reshape(-1, ACTION_SIZE),
            messages=(*pictures, message),
        )

    def _picture(self, topic: str, stamp: int) -> Message:
        found = self._pictures.get(topic, {}).get(stamp)
        if found is None:
            raise DemonstrationError(
                f'the picture of {topic} is not in the recording (dropped, or in a piece that was '
                'deleted), so the inference is left out'
            )
        return found

    def _decoded(self, reader: Any, message: Message) -> np.ndarray:
        """Decode a picture as the node does."""
        content = reader.deserialize(message.data, message.kind)
        pixels = content.data.tobytes()
        try:
            if message.kind == COMPRESSED:
                return CompressedPicture(pixels, content.format).decode()
            encoding, meant = content.encoding, self.parameters.get('encoding_8uc3', 'refuse')
            if encoding == '8UC3' and meant != 'refuse':
                encoding = meant
            return RawPicture(
                pixels, content.height, content.width, encoding, content.step
            ).decode()
        except ImageError as error:
            raise DemonstrationError(f'{message.topic}: {error}') from None


def _state(content: Any) -> RobotState:
    parts: dict[str, np.ndarray | None] = {}
    for name, size in STATE_SIZES.items():
        values = np.array(getattr(content, name), np.float64)
        if len(values) not in (0, size) or not np.isfinite(values).all():
            raise DemonstrationError(
                f'{name} is {values.tolist()}, not {size} finite numbers, so the inference is left '
                'out'
            )
        parts[name] = values if len(values) else None
    return RobotState(**parts)


def _value(value: Any) -> Any:
    """Return what a rcl_interfaces/ParameterValue holds."""
    names = ('bool', 'integer', 'double', 'string', 'byte_array', 'bool_array', 'integer_array')
    names += ('double_array', 'string_array')
    return getattr(value, f'{names[value.type - 1]}_value') if value.type else None
