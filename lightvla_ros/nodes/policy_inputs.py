"""The policy node's inputs: subscriptions whose callbacks only check and store."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

from geometry_msgs.msg import PoseStamped
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.subscription import Subscription
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Header, String

from lightvla_ros.contract import Manifest
from lightvla_ros.errors import ImageError, quoted
from lightvla_ros.msg import ActionChunk, VlaStatus
from lightvla_ros.nodes.conversions import InputError, stamp_ns
from lightvla_ros.nodes.graph_watch import GraphWatch
from lightvla_ros.nodes.launch_arguments import instruction_command
from lightvla_ros.nodes.picture_reader import PictureReader
from lightvla_ros.nodes.policy_parameters import freshness_from
from lightvla_ros.nodes.qos import subscribe
from lightvla_ros.nodes.recorder import NoRecorder
from lightvla_ros.nodes.sampled_group import SampledGroup
from lightvla_ros.nodes.state_reader import StateReader
from lightvla_ros.nodes.topic_graph import Topic
from lightvla_ros.nodes.wanted_topics import (
    WantedTopic,
    camera_topics,
    instruction_topic,
    state_topics,
)
from lightvla_ros.policy.compressed_images import CompressedPicture
from lightvla_ros.policy.familiarity import Score
from lightvla_ros.policy.images import RawPicture
from lightvla_ros.policy.observation import Observation
from lightvla_ros.policy.policy import Policy, Prediction
from lightvla_ros.policy.state import Outside, RobotState, out_of_bounds
from lightvla_ros.runtime.inbox import Inbox, Job
from lightvla_ros.runtime.reasons import kind

STATE_PERIOD = 0.01  # between two messages that are read [s]; robots send up to 1000 per second
LATE_CLOCK = 500_000_000  # ns; a busy node reads /clock so much later than a message, at most
WARNING_PERIOD = 5.0  # per source and reason [s]


class InputTopics:
    """Subscriptions to cameras, state and instruction, and the inbox that they fill.

    :param example: An instruction that the policy knows, which messages suggest to the user.
    :param on_new: Called when something new was stored.
    :param on_instruction: Called with each instruction.
    :param recorder: Gets every message as it came.
    :ivar image_topics: Resolved names, by camera.
    """

    def __init__(
        self,
        node: Node,
        manifest: Manifest,
        values: SimpleNamespace,
        example: str,
        on_new: Callable[[], None],
        on_instruction: Callable[[String], None],
        recorder: NoRecorder,
    ) -> None:
        self.active = False  # needed: subscriptions of an inactive lifecycle node keep running
        self.frames = 0
        self.pictures = PictureReader(manifest.cameras, values)
        self.states = StateReader(manifest.proprio, values)
        self._node = node
        self._recorder = recorder
        self._base_frame = values.base_frame
        self.example = example
        self._on_new = on_new
        self._warned: dict[str, float] = {}
        cameras, states = camera_topics(node, manifest, values), state_topics(node, manifest)
        self.image_topics = {name: wanted.topic.name for name, wanted in cameras.items()}
        self.inbox = Inbox(tuple(cameras), tuple(states), freshness_from(values))
        self._subscriptions: list[Subscription] = []
        self._topics: list[Topic] = []
        for name, wanted in cameras.items():
            self._take(wanted, partial(self._on_image, name))
        for name, wanted in states.items():
            on_state = self._on_pose if name == 'ee_pose' else partial(self._on_state, name)
            self._take(wanted, on_state, SampledGroup(STATE_PERIOD))
        self._take(instruction_topic(node), on_instruction)
        self._simulated = bool(node.get_parameter('use_sim_time').value)
        if self._simulated:
            self._topics.append(Topic.of(node, 'clock', '/clock', '/clock', Clock))
        outputs = [
            Topic.of(node, name, f'~/{name}', f'~/{name}', kind)
            for name, kind in (('action_chunk', ActionChunk), ('status', VlaStatus))
        ]
        self._graph = GraphWatch(
            node, self._topics, outputs, lambda: values.allow_several_publishers, self._on_graph
        )

    def clear(self) -> None:
        """Forget all frames and states."""
        self.pictures.clear()
        self.inbox.clear()

    def destroy(self) -> None:
        """Remove the subscriptions."""
        self._graph.destroy()
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def refuse(self, job: Job, error: InputError) -> str:
        """Drop a job's message that turned out to be bad; return the reason."""
        why = self.inbox.refuse(job, error.source, error.code, str(error))
        self._warn(why, str(error))
        return why

    def advice(self) -> str:
        """Return one line that says what to do so that the robot moves; empty if none is needed."""
        advice = [self.advice_on_topics()]
        if not self.inbox.instruction:
            topic = self._node.resolve_topic_name('instruction')
            advice.append(f'to give an instruction: {instruction_command(topic, self.example)}')
        return '; '.join(filter(None, advice))

    def advice_on_topics(self) -> str:
        """Return one line that says what to do about inputs without messages."""
        return self._graph.advice(self.inbox.missing())

    def _take(
        self, wanted: WantedTopic, callback: Callable, group: CallbackGroup | None = None
    ) -> None:
        topic = wanted.topic
        callback = self._recorder.tap(topic.name, callback, latched=wanted.message is String)
        self._subscriptions.append(
            subscribe(self._node, wanted.message, topic.name, callback, wanted.qos, group)
        )
        self._topics.append(topic)

    def _on_graph(self, why: str) -> None:
        self.inbox.obstacle = why
        self._on_new()

    def _on_image(self, camera: str, message: Image | CompressedImage) -> None:
        if not self.active:
            return
        self.frames += 1
        try:
            picture = self.pictures.take(camera, message)
        except ImageError as error:
            self._reject(camera, error.code, str(error))
        else:
            self._offer(camera, picture, message.header)

    def _on_pose(self, message: PoseStamped) -> None:
        frame = message.header.frame_id
        if frame == self._base_frame:
            self._on_state('ee_pose', message)
        elif self.active:
            text = f'base_frame is {self._base_frame!r}, its frame is {quoted(frame)}'
            self._reject('ee_pose', 'bad_frame', text)

    def _on_state(self, source: str, message: PoseStamped | JointState) -> None:
        if not self.active:
            return
        try:
            state = self.states.read(message)
        except InputError as error:
            self._reject(source, error.code, str(error))
        else:
            self._offer(source, state, message.header)

    def _offer(
        self, source: str, content: RawPicture | CompressedPicture | RobotState, header: Header
    ) -> None:
        now, stamp = self._node.get_clock().now().nanoseconds, stamp_ns(header.stamp)
        if self._simulated and now < stamp <= now + LATE_CLOCK:
            now = stamp  # the message has overtaken the /clock of its time
        why = self.inbox.offer(source, content, stamp, now, time.monotonic_ns())
        if why:
            self._warn(why)
        else:
            self._on_new()

    def _reject(self, source: str, code: str, text: str) -> None:
        self._warn(self.inbox.reject(source, code, text), text)

    def _warn(self, why: str, text: str = '') -> None:
        # rclpy throttles per line of code: warnings of one source would hide those of another
        now = time.monotonic()
        if now - self._warned.get(kind(why), -math.inf) > WARNING_PERIOD:
            self._warned[kind(why)] = now
            # the whole text, because a reason is cut to fit into a message
            line = f'{kind(why)} {text}' if text else why
            self._node.get_logger().warning(f'message dropped: {line}')


@dataclass(frozen=True)
class Result:
    """A prediction, and what the node measured around it.

    :param decode: Time spent on decoding the pictures [s].
    :param observation_age: From the observation's stamp to the start of inference [ns].
    :param outside: The state's numbers that were clipped to the policy's bounds.
    :param score: What the alarm says; None before it was asked, and if it was not calibrated.
    """

    observation: Observation
    prediction: Prediction
    decode: float
    observation_age: int
    outside: tuple[Outside, ...] = ()
    score: Score | None = None


def measured_state(job: Job) -> RobotState:
    """Return the parts of a job's state together."""
    state = RobotState()
    for part in job.states.values():
        state = state.joined(part.content)
    return state


def run_job(
    policy: Policy,
    job: Job,
    state: RobotState,
    age: int,
    pictures: PictureReader,
) -> Result:
    """Decode a job's pictures and run the policy. Runs in the inference thread.

    :param state: The state that the policy gets.
    :param age: The observation's age now [ns].
    :param pictures: Decodes the job's pictures.
    :raises InputError: When a picture must not be acted on.
    """
    started = time.perf_counter()
    images = pictures.read(job)
    spec = policy.manifest.proprio
    outside = () if spec is None else tuple(out_of_bounds(spec, state))
    decoded = time.perf_counter()
    observation = Observation(images, job.instruction, state)
    prediction = policy.infer(observation)
    return Result(observation, prediction, decoded - started, age, outside)
