"""The demo's own node: starts episodes, gives the instruction, collects results, and films."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParameters
from rclpy.client import Client
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_msgs.msg import String
from std_srvs.srv import Trigger

from lightvla_ros.contract import Manifest
from lightvla_ros.contract.libero import CAMERAS, PERIOD
from lightvla_ros.errors import LightVLAError
from lightvla_ros.msg import ActionChunk, VlaStatus
from lightvla_ros.nodes.conversions import picture_from_message, stamp_ns
from lightvla_ros.nodes.demo.report import StageStatistics
from lightvla_ros.nodes.qos import LATCHED
from lightvla_ros.runtime.reasons import kind
from lightvla_ros.show.video import Caption, VideoWriter, compose_frame
from lightvla_ros.sim.episode import EpisodeSpec


class EpisodeError(LightVLAError):
    """An episode could not be started; one line says why."""


class Conductor(Node):
    """Drives the bridge and a policy (or the replay) through episodes.

    :ivar uses_executor: Whether a chunk executor commands the arm.
    :param wait: Spins until its argument returns true; it raises when a child process died or the
        time is over.
    """

    def __init__(self, wait: Callable[[Callable[[], bool], float, str], None]) -> None:
        super().__init__('demo')
        self.statistics = StageStatistics()
        self._wait = wait
        self._instruction = self.create_publisher(String, 'instruction', 1)
        self._parameters: dict[str, Client] = {}  # by node
        self._reset = self.create_client(Trigger, 'libero_bridge/reset')
        self._policy_reset = self.create_client(Trigger, 'lightvla/reset')
        self._executor = self.create_client(ChangeState, 'chunk_executor/change_state')
        self.uses_executor = False
        self._episode: dict = {}
        self._result: dict = {}
        self._status = VlaStatus()
        self._film: Film | None = None
        self._images: dict[str, Image] = {}
        self._arrived: dict[int, float] = {}
        self.create_subscription(String, 'libero_bridge/episode', self._on_episode, LATCHED)
        self.create_subscription(String, 'libero_bridge/result', self._on_result, LATCHED)
        self.create_subscription(VlaStatus, 'lightvla/status', self._on_status, LATCHED)
        self.create_subscription(ActionChunk, 'lightvla/action_chunk', self._on_chunk, 10)
        for name in CAMERAS:
            self.create_subscription(Image, f'{name}/image', partial(self._on_image, name), 10)
            self.create_subscription(
                Image, f'lightvla/debug/kept_patches/{name}', partial(self._on_mask, name), 10
            )

    def run_episode(self, spec: EpisodeSpec, policy: Manifest | None, video: Path | None) -> dict:
        """Run one episode and return its result as the bridge reports it.

        :param policy: The policy that answers, which needs the instruction; None for a replay.
        """
        self._episode = {}
        self._result = {}
        if policy:
            self._wait(self._policy_is_active, 600.0, 'the policy to be loaded')
            # it must not continue with the last episode's instruction
            self._call(self._policy_reset, Trigger.Request())
        if self.uses_executor:
            # anew, because nothing of the last episode is true any more: not even where the arm is
            for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE):
                request = ChangeState.Request(transition=Transition(id=transition))
                if not self._call(self._executor, request).success:
                    raise EpisodeError(
                        'the executor does not start; see logs/chunk_executor_node.log'
                    )
        values = {
            'suite': spec.suite,
            'task': spec.task,
            'init_state': spec.init_state,
            'seed': spec.seed,
        }
        self.set_parameters('libero_bridge', values)
        with self._filmed(spec, policy, video):
            self._call(self._reset, Trigger.Request())
            self._wait(lambda: bool(self._result or self._episode), 120.0, 'a new episode')
            if policy and not self._result:
                self._give_instruction()
            self._wait(lambda: bool(self._result), 3600.0, 'the end of the episode')
        return self._result

    def set_parameters(self, node: str, values: Mapping[str, object]) -> None:
        """Set parameters of a node, by its name.

        :raises EpisodeError: When the node refuses one.
        """
        if node not in self._parameters:
            service = f'{node}/set_parameters'
            self._parameters[node] = self.create_client(SetParameters, service)
        request = SetParameters.Request(
            parameters=[Parameter(k, value=v).to_parameter_msg() for k, v in values.items()]
        )
        for outcome in self._call(self._parameters[node], request).results:
            if not outcome.successful:
                raise EpisodeError(outcome.reason)

    @contextmanager
    def _filmed(
        self, spec: EpisodeSpec, policy: Manifest | None, video: Path | None
    ) -> Iterator[None]:
        """Film an episode; an unfinished episode leaves no video."""
        if video is None:
            yield
            return
        who, crop_area = ('replay', 1.0)
        if policy:
            who, crop_area = policy.name, policy.preprocessing.crop_area
        title = f'{who}, {spec}'
        self._film = Film(video, title, crop_area)
        try:
            yield
            self._film.finish(self._result)
        finally:
            self._film.discard()
            self._film = None

    def _policy_is_active(self) -> bool:
        if kind(self._status.reason) == 'configure_failed':
            raise EpisodeError('the policy could not be loaded; see logs/policy_node.log')
        return self._status.state >= VlaStatus.WAITING

    def _give_instruction(self) -> None:
        """Send the task's instruction until the policy's status shows it."""
        text = self._episode['instruction']
        sent = 0.0

        def accepted() -> bool:
            nonlocal sent
            if time.monotonic() - sent > 0.5:  # volatile: lost if the policy subscribes later
                sent = time.monotonic()
                self._instruction.publish(String(data=text))
            return self._status.instruction == text or bool(self._result)

        self._wait(accepted, 60.0, 'the policy to accept the instruction')

    def _call(self, client: Client, request: Any) -> Any:
        self._wait(client.service_is_ready, 120.0, f'the service {client.srv_name}')
        future = client.call_async(request)
        self._wait(future.done, 60.0, f'an answer of {client.srv_name}')
        return future.result()

    def _on_episode(self, message: String) -> None:
        self._episode = json.loads(message.data)
        if self._film:
            self._film.episode = self._episode

    def _on_result(self, message: String) -> None:
        self._result = json.loads(message.data)

    def _on_status(self, message: VlaStatus) -> None:
        self._status = message

    def _on_chunk(self, message: ActionChunk) -> None:
        stats = message.stats
        if not message.steps or not stats.tokens_kept:
            return
        milliseconds = {
            'preprocess': stamp_ns(stats.preprocess_time) * 1e-6,
            'inference': stamp_ns(stats.inference_time) * 1e-6,
            'postprocess': stamp_ns(stats.postprocess_time) * 1e-6,
            'observation_age': stamp_ns(stats.observation_age) * 1e-6,
        }
        arrived = self._arrived.pop(stamp_ns(stats.observation_stamp), None)
        if arrived is not None:  # from image to chunk in this process: the time a robot would wait
            milliseconds['image_to_chunk'] = 1e3 * (time.monotonic() - arrived)
        self.statistics.add(milliseconds, dict(zip(stats.cameras, stats.tokens_kept, strict=True)))
        if self._film:
            self._film.chunk(message)

    def _on_image(self, name: str, message: Image) -> None:
        stamp = stamp_ns(message.header.stamp)
        self._arrived = {stamp: time.monotonic()}
        self._images[name] = message
        together = {stamp_ns(image.header.stamp) for image in self._images.values()}
        if self._film and len(self._images) == len(CAMERAS) and len(together) == 1:
            self._film.pair(
                stamp, [picture_from_message(self._images[n]).decode() for n in CAMERAS]
            )

    def _on_mask(self, name: str, message: Image) -> None:
        if self._film:
            mask = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width)
            self._film.masks[name] = mask > 0


class Film:
    """Draws an episode's frames as they arrive.

    A frame is drawn when the next one arrives, because its chunk is published in between.
    """

    def __init__(self, path: Path, title: str, crop_area: float) -> None:
        self.episode: dict = {}
        self.masks: dict[str, np.ndarray] = {}
        self._writer = VideoWriter(path)
        self._title = title
        self._crop_area = crop_area
        self._chunk: ActionChunk | None = None
        self._waiting: tuple[int, list[np.ndarray]] | None = None

    def chunk(self, message: ActionChunk) -> None:
        """Note the newest chunk."""
        self._chunk = message

    def pair(self, stamp: int, images: list[np.ndarray]) -> None:
        """Take both cameras' images of one instant; a repeated one is ignored."""
        if not self.episode or (self._waiting and self._waiting[0] == stamp):
            return
        self._draw()
        self._waiting = (stamp, images)

    def finish(self, result: dict) -> None:
        """Draw the last frame for two seconds with the outcome, and close the file."""
        outcome = 'error' if result['error'] else ('success' if result['success'] else 'not solved')
        self._draw(outcome, repeat=20, step=result.get('steps'))
        self._writer.close()

    def discard(self) -> None:
        """Leave no file, unless it is finished."""
        self._writer.discard()

    def _draw(self, outcome: str = '', repeat: int = 1, step: int | None = None) -> None:
        if self._waiting is None:
            return
        stamp, images = self._waiting
        stats = self._chunk.stats if self._chunk else None
        latency = None
        if stats:
            latency = (stamp_ns(stats.preprocess_time) + stamp_ns(stats.inference_time)) * 1e-6
        caption = Caption(
            title=self._title,
            instruction=self.episode['instruction'],
            step=(stamp - self.episode['start']) // PERIOD if step is None else step,
            max_steps=self.episode['max_steps'],
            kept=tuple(stats.tokens_kept) if stats else (),
            total=sum(stats.tokens_total) if stats else 0,
            latency_ms=latency,
            outcome=outcome,
        )
        masks = [self.masks[n] for n in CAMERAS] if len(self.masks) == len(CAMERAS) else None
        frame = compose_frame(images, masks, list(CAMERAS), caption, self._crop_area)
        self._writer.add(frame, repeat)
