"""A node's latched status, its log lines, and its diagnostics at 1 Hz."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node
from rclpy.qos import QoSProfile

from lightvla_ros.msg import VlaStatus
from lightvla_ros.nodes.conversions import time_message
from lightvla_ros.nodes.qos import LATCHED, wait_until_received
from lightvla_ros.nodes.recorder import NoRecorder
from lightvla_ros.runtime.reasons import kind, reason

REMINDER = 5.0  # s between two log lines that say what the node waits for
STATE_NAMES = {
    getattr(VlaStatus, name): name
    for name in ('UNCONFIGURED', 'INACTIVE', 'WAITING', 'RUNNING', 'HOLDING', 'FAULT')
}
LEVELS = {
    VlaStatus.RUNNING: DiagnosticStatus.OK,
    VlaStatus.HOLDING: DiagnosticStatus.ERROR,
    VlaStatus.FAULT: DiagnosticStatus.ERROR,
}


class StatusReport:
    """Publishes the node's state: on every change, and once a second as a heartbeat.

    :param advise: Returns one line that says what to do about missing inputs.
    :param on_failure: Called with the name of the message that could not be published, and the
        error; nothing raises. A failed status is replaced by one without any text.
    :param recorder: Gets what is published.
    """

    def __init__(
        self,
        node: Node,
        advise: Callable[[], str],
        on_failure: Callable[[str, Exception], None],
        recorder: NoRecorder | None = None,
    ) -> None:
        self.state = VlaStatus.UNCONFIGURED
        self.reason = ''
        self.instruction = ''
        self.instruction_rejected = False
        self.chunks = 0
        self._node = node
        self._recorder = recorder or NoRecorder()
        self._on_failure = on_failure
        self._advise = advise
        self._remind_at = 0.0
        self._status = node.create_publisher(VlaStatus, '~/status', LATCHED)
        self._diagnostics = node.create_publisher(
            DiagnosticArray, '/diagnostics', QoSProfile(depth=1)
        )

    def change(self, state: int, why: str) -> None:
        """Store a state and its reason; log and publish them when they are new.

        A number that changed within the reason is not new; the next heartbeat publishes it.
        """
        log = self._node.get_logger()
        if (state, kind(why)) == (self.state, kind(self.reason)):
            self.reason = why
            if state == VlaStatus.WAITING and time.monotonic() > self._remind_at:
                self._remind_at = time.monotonic() + REMINDER
                advice = self._advise()
                log.warning(f'waiting: {kind(why)}; {advice}' if advice else f'waiting: {why}')
            return
        self._remind_at = time.monotonic() + 1.0  # by then all publishers have been discovered
        self.state, self.reason = state, why
        line = STATE_NAMES[state] + (f': {why}' if why else '')
        # a call for each severity: rclpy ties a severity to the calling line
        if state == VlaStatus.FAULT:
            log.error(line)
        elif state == VlaStatus.HOLDING:
            log.warning(line)
        else:
            log.info(line)
        self.publish()

    def publish(self) -> None:
        """Publish the status as it is."""
        why = self.reason
        if self.instruction_rejected and not why:
            why = reason('instruction_rejected')
        message = VlaStatus(state=self.state, chunks=self.chunks)
        try:
            message.header.stamp = self._now()
            message.reason, message.instruction = why, self.instruction
            self._status.publish(message)
        except Exception as error:
            self._on_failure('status', error)
            message.reason = message.instruction = ''
            with suppress(Exception):  # the failure was reported already
                self._status.publish(message)
        self._recorder.put(self._status.topic_name, message, latched=True)

    def say_last_words(self, why: str) -> None:
        """Say that there is no policy any more, and wait until that has been received."""
        self.change(VlaStatus.UNCONFIGURED, why)
        wait_until_received(self._status)

    def publish_diagnostics(self, statuses: Sequence[DiagnosticStatus]) -> None:
        """Publish diagnostics in the standard format, which rqt_robot_monitor and others show.

        ``diagnostic_updater`` is not used: its timers run on ROS time and freeze with the
        simulator.
        """
        message = DiagnosticArray(status=statuses)
        message.header.stamp = self._now()
        try:
            self._diagnostics.publish(message)
            self._recorder.put(self._diagnostics.topic_name, message)
        except Exception as error:
            self._on_failure('diagnostics', error)

    @property
    def line(self) -> str:
        """The state and its reason in words."""
        return f'{STATE_NAMES[self.state]} {self.reason}'.strip()

    @property
    def level(self) -> bytes:
        """The diagnostic level of the state."""
        return LEVELS.get(self.state, DiagnosticStatus.WARN)

    def _now(self):
        return time_message(self._node.get_clock().now().nanoseconds)


def diagnostic(
    node: str, part: str, level: bytes, message: str, values: Mapping[str, Any]
) -> DiagnosticStatus:
    """Build one status.

    :param node: Fully qualified name, so that two robots' statuses can be told apart.
    :param level: One of DiagnosticStatus.OK, WARN, ERROR, STALE.
    """
    return DiagnosticStatus(
        level=level,
        name=f'{node}: {part}',
        message=message,
        hardware_id=node,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )
