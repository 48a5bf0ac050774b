"""The page of one policy node."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rclpy.node import Node

from lightvla_ros.errors import ConfigError
from lightvla_ros.nodes.parameters import ParameterError
from lightvla_ros.nodes.policy_outputs import SentChunk
from lightvla_ros.nodes.policy_runner import PolicyRunner
from lightvla_ros.nodes.status_report import StatusReport
from lightvla_ros.nodes.view.orders import Orders
from lightvla_ros.nodes.view.pictures import SmallPictures
from lightvla_ros.nodes.view.server import PageServer
from lightvla_ros.nodes.view.snapshot import cameras_of, chunk_of, point_of, status_of
from lightvla_ros.policy.calibration import load_calibrations

PERIOD = 0.1  # s between two events
POINTS = 600  # chunks that the curves show
ADVICE_PERIOD = 1.0  # s; it asks the ROS graph, which takes milliseconds


class LiveView:
    """Serves the page while the node is there; costs next to nothing while nobody looks.

    :param node: The policy node.
    :param values: The node's parameters.
    :param report: The node's status.
    :param runner: Returns the node's runner; None while no policy is configured.
    :raises ParameterError: When the address cannot be had, or the calibration cannot be read.
    """

    def __init__(
        self,
        node: Node,
        values: SimpleNamespace,
        report: StatusReport,
        runner: Callable[[], PolicyRunner | None],
    ) -> None:
        self._name = node.get_fully_qualified_name()
        self._report = report
        self._runner = runner
        self._small = SmallPictures()
        self._points: deque[dict[str, Any]] = deque(maxlen=POINTS)
        self._sent: SentChunk | None = None
        self._calibrations = {}
        try:
            if values.view_calibration:
                self._calibrations = load_calibrations(Path(values.view_calibration))
        except ConfigError as error:
            raise ParameterError(f'view_calibration: {error}') from None
        self._orders = Orders(node)
        try:
            self._server = PageServer(
                values.view_address,
                values.view_port,
                {
                    file.name: file.read_bytes()
                    for file in resources.files(__package__).joinpath('page').iterdir()
                },
                self._watch,
                self._orders.by_name(),
            )
        except OSError as error:
            self._orders.close()
            raise ParameterError(
                f'the page cannot be served at view_address {values.view_address}, view_port '
                f'{values.view_port}: {error.strerror or error}'
            ) from None

    @property
    def url(self) -> str:
        """Where the page is."""
        return self._server.url

    def on_sent(self, sent: SentChunk) -> None:
        """Note a chunk. Runs in the inference thread."""
        self._sent = sent
        self._points.append(point_of(sent))

    def close(self) -> None:
        """Stop serving."""
        self._server.close()
        self._orders.close()

    def _watch(self, query: str) -> Iterator[dict[str, Any]]:
        """Yield what is new, ten times a second.

        :param query: ``seen`` shows the pictures that the last chunk was computed from, anything
            else the newest ones.
        """
        shown: dict[str, int] = {}
        told, last, advice, asked = 0.0, None, '', 0.0
        while True:
            began = time.monotonic()
            runner, sent = self._runner(), self._sent
            if began - asked > ADVICE_PERIOD:
                asked, advice = began, runner.inputs.advice_on_topics() if runner else ''
            event = status_of(self._report, runner, advice)
            event |= {'node': self._name, 'now': began}
            event['points'] = [point for point in list(self._points) if point['at'] > told]
            if event['points']:
                told = event['points'][-1]['at']
            if runner is not None:
                manifest = runner.policy.manifest
                frames = runner.inbox.newest(camera.name for camera in manifest.cameras)
                if query == 'seen' and sent is not None:
                    frames = sent.job.frames
                event['cameras'] = cameras_of(manifest, frames, shown, self._small)
                if sent is not None and sent is not last:
                    last = sent
                    event['chunk'] = chunk_of(sent, manifest, self._calibrations)
            yield event
            time.sleep(max(0.0, began + PERIOD - time.monotonic()))
