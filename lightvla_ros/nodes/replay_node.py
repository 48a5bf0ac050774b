"""Replays recorded actions through the ROS graph, to prove that the loop changes nothing.

Instead of a policy, this node answers each of the bridge's observations with the next actions of
the episode's recording, as an ActionChunk.
"""

from __future__ import annotations

import json
import sys
import threading
import uuid
from pathlib import Path
from types import SimpleNamespace

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import String

from lightvla_ros.contract.libero import CONTROL_PERIOD, PERIOD, ROTATION_SCALE, TRANSLATION_SCALE
from lightvla_ros.msg import ActionChunk, InferenceStats
from lightvla_ros.nodes.conversions import ChunkHeader, chunk_to_message, stamp_ns, time_message
from lightvla_ros.nodes.parameters import Parameter, ParameterTable
from lightvla_ros.nodes.qos import LATCHED
from lightvla_ros.nodes.spin import run_node
from lightvla_ros.policy.actions import chunk_from_osc
from lightvla_ros.runtime.reasons import reason
from lightvla_ros.sim.episode import EpisodeSpec
from lightvla_ros.sim.recording import Recording, load_recording, recording_path

REPLAY_PARAMETERS = ParameterTable(
    [Parameter('recordings', '', 'Folder of the recordings to replay (required).')]
)


def _check(values: SimpleNamespace) -> str | None:
    return None if values.recordings else 'recordings is empty; name the folder of recordings'


class ReplayNode(Node):
    """Answers observations from a recording."""

    def __init__(self, stop: threading.Event | None = None, **options) -> None:
        # the policy node's name, because this node replaces it
        super().__init__('lightvla', **options)
        self._folder = Path(REPLAY_PARAMETERS.declare(self, check=_check).recordings)
        self._session_id = str(uuid.uuid4())
        self._sequence = 0
        self._recording: Recording | None = None
        self._instruction = ''
        self._base_frame = ''
        self._start = 0
        self._answered = 0
        self._due = 0
        self._publisher = self.create_publisher(ActionChunk, '~/action_chunk', 1)
        self.create_subscription(String, 'libero_bridge/episode', self._on_episode, LATCHED)
        # an image, although a small message would do: the replay must use an observation's path
        self.create_subscription(Image, 'third_person/image', self._on_image, 1)
        self.create_timer(1.0, lambda: None, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _on_episode(self, message: String) -> None:
        episode = json.loads(message.data)
        spec = EpisodeSpec(**{key: episode[key] for key in EpisodeSpec.__annotations__})
        path = recording_path(self._folder, spec)
        try:
            self._recording = load_recording(path)
        except FileNotFoundError:
            self._recording = None
            self.get_logger().error(f'{path}: there is no recording of {spec}')
        self._instruction, self._base_frame = episode['instruction'], episode['base_frame']
        self._start = self._due = episode['start']

    def _on_image(self, message: Image) -> None:
        stamp = stamp_ns(message.header.stamp)
        again = stamp == self._answered  # the bridge did not receive the answer
        if self._recording is None or not (again or stamp >= self._due):
            return
        actions = self._recording.chunk_at((stamp - self._start) // PERIOD)
        chunk = chunk_from_osc(actions, CONTROL_PERIOD, TRANSLATION_SCALE, ROTATION_SCALE)
        self._answered = stamp
        self._due = stamp + len(actions) * PERIOD
        self._publisher.publish(
            chunk_to_message(
                chunk,
                ChunkHeader(
                    stamp,
                    stamp + PERIOD,
                    self._sequence,
                    self._session_id,
                    ActionChunk.REFERENCE_MEASURED_POSE,
                    frame_id=self._base_frame,
                    child_frame_id='panda_hand_tcp',
                    instruction=self._instruction,
                    reason='' if len(chunk) else reason('recording_ended'),
                    stats=InferenceStats(observation_stamp=time_message(stamp), backend='replay'),
                ),
            )
        )
        self._sequence += 1


def main() -> int:
    """Run the replay node."""
    return run_node(ReplayNode)


if __name__ == '__main__':
    sys.exit(main())
