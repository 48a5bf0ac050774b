"""Records what a node receives and says, in a thread that nothing waits for.

Callbacks and the inference thread only put messages into a queue. The thread serialises them and
writes them into bags. What does not fit into the queue, or comes after the disk is full, is dropped
and counted by topic; the diagnostics say so.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rcl_interfaces.msg import ParameterEvent
from rclpy.node import Node
from rclpy.serialization import serialize_message

from lightvla_ros.demonstrations.bag_writer import BagWriter, Kept, RecordingError
from lightvla_ros.errors import one_line
from lightvla_ros.files import resource
from lightvla_ros.nodes.conversions import time_message
from lightvla_ros.nodes.parameters import Parameter, ParameterError

QUEUE = 64_000_000  # bytes of messages that wait: 8 s of two raw 256 x 256 cameras at 20 Hz
SMALL = 2_000  # bytes, roughly, of a message that is no picture
PAUSE = 0.1  # s between two looks into the queue; waking for each message would cost more
FLUSH = 0.5  # s; a killed process loses at most this and a pause
PATIENCE = 10.0  # s for the rest of the queue when the node ends

RECORDING_PARAMETERS = [
    Parameter(
        'record',
        False,
        'Whether inputs, chunks, status, diagnostics and each inference are recorded as MCAP, for '
        '`lightvla replay`.',
    ),
    Parameter(
        'record_folder',
        '~/lightvla_recordings',
        'Folder of the recordings; each start of the node makes a folder in it.',
    ),
    Parameter(
        'record_minutes',
        10.0,
        'Length of the ring: older pieces of this recording are deleted [min]; 0: keep all.',
        0.0,
        1e5,
    ),
    Parameter(
        'record_budget',
        10.0,
        'The most that `record_folder` may hold, earlier recordings included [GB]. A ring then '
        'becomes shorter; a recording of everything ends, and the diagnostics say so.',
        0.01,
        1e5,
    ),
]


class NoRecorder:
    """Records nothing."""

    def tap(self, topic: str, callback: Callable, latched: bool = False) -> Callable:
        """Return the callback."""
        return callback

    def put(self, topic: str, message: Any, latched: bool = False) -> None:
        """Do nothing."""

    def put_parameters(self) -> None:
        """Do nothing."""

    def figures(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def close(self) -> None:
        """Do nothing."""


class Recorder(NoRecorder):
    """Records a node. Any thread may call any method; none waits for the disk.

    :param values: The node's parameters.
    :raises ParameterError: When nothing can be recorded.
    :ivar dropped: Number of messages that were not written, by topic.
    :ivar fault: Why recording has ended; empty while it goes on.
    """

    def __init__(self, node: Node, values: SimpleNamespace) -> None:
        self._node = node
        kept = Kept(values.record_minutes * 60, round(values.record_budget * 1e9))
        definitions = {
            f'lightvla_ros/msg/{file.stem}': file.read_text()
            for file in sorted(resource('msg').glob('*.msg'))
        }
        try:
            folder = Path(values.record_folder).expanduser()
            self._bags = BagWriter(folder, kept, definitions)
        except (RecordingError, RuntimeError) as error:  # RuntimeError: there is no home
            raise ParameterError(f'record is true, but {one_line(error)}') from None
        self.dropped: Counter[str] = Counter()
        self.written = 0
        self.fault = ''
        self._lock = threading.Lock()
        self._queue: deque[tuple[str, Any, int, bool, int]] = deque()
        self._waiting = self._most = 0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._loop, name='recorder', daemon=True)
        self._thread.start()
        node.get_logger().info(f'recording into {self._bags.folder}')

    def tap(self, topic: str, callback: Callable, latched: bool = False) -> Callable:
        """Return a subscription's callback that also records each message, as it came.

        :param topic: Resolved name.
        """

        def recorded(message: Any) -> None:
            self.put(topic, message, latched)
            callback(message)

        return recorded

    def put(self, topic: str, message: Any, latched: bool = False) -> None:
        """Record a message, which nothing may change any more, or what makes one in the thread.

        :param topic: Resolved name.
        :param latched: Whether each piece of the recording begins with the newest one.
        """
        size = SMALL + len(getattr(message, 'data', b''))
        with self._lock:
            if self.fault or self._waiting + size > QUEUE:
                self.dropped[topic] += 1
                return
            now = self._node.get_clock().now().nanoseconds
            self._queue.append((topic, message, now, latched, size))
            self._waiting += size
            self._most = max(self._most, self._waiting)

    def put_parameters(self) -> None:
        """Record the node's parameters as they are."""
        event = ParameterEvent(node=self._node.get_fully_qualified_name())
        event.stamp = time_message(self._node.get_clock().now().nanoseconds)
        found = self._node.get_parameters_by_prefix('').values()
        event.new_parameters = [each.to_parameter_msg() for each in found]
        self.put('/parameter_events', event, latched=True)

    def figures(self) -> dict[str, Any]:
        """Return where and how much is recorded, and what was dropped, for the diagnostics."""
        return {
            'folder': self._bags.folder,
            'megabytes': round(self._bags.bytes / 1e6, 1),
            'written': self.written,
            'queue_megabytes_max': round(self._most / 1e6, 1),
            **{f'dropped{topic}': count for topic, count in sorted(self.dropped.items())},
        }

    def close(self) -> None:
        """Write what waits, and finish the file; wait for that for a limited time."""
        self._ending.set()
        self._thread.join(PATIENCE)

    def _loop(self) -> None:
        flush = time.monotonic() + FLUSH
        try:
            while not self._ending.wait(PAUSE):
                self._write_waiting()
                if time.monotonic() >= flush:
                    self._bags.flush()
                    flush = time.monotonic() + FLUSH
            self._write_waiting()
        except Exception as error:  # a full disk, say: the robot goes on without
            with self._lock:
                self.fault = one_line(error)
                self.dropped.update(topic for topic, *_ in self._queue)
                self._queue.clear()
            self._node.get_logger().error(f'recording has ended: {self.fault}')
        with suppress(Exception):  # the file is whole up to the last flush
            self._bags.close()

    def _write_waiting(self) -> None:
        while self._queue:
            topic, message, stamp, latched, size = self._queue.popleft()
            try:
                if callable(message):
                    message = message()
                data = serialize_message(message)
            except Exception:  # a text that is no UTF-8, say: nothing could be published of it
                data = None
            if data is not None:
                kind = f'{type(message).__module__.partition(".")[0]}/msg/{type(message).__name__}'
                self._bags.write(topic, kind, stamp, data, latched)
                self.written += 1
            with self._lock:
                self._waiting -= size
                if data is None:
                    self.dropped[topic] += 1
