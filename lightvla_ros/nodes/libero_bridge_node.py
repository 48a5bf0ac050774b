"""The LIBERO bridge: a simulated Panda that looks like a robot to the policy node.

It publishes ``/clock``, both cameras and the state, executes action chunks, and says how each
episode ended. Simulated time goes on over episodes and jumps by 2 s between them, which a policy
notices as a break; it never goes back.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import deque
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from lightvla_ros.msg import ActionChunk
from lightvla_ros.nodes.bridge_modes import (
    PERIOD,
    EpisodeAbortedError,
    EpisodeCounts,
    run_lockstep,
    run_wall_clock,
)
from lightvla_ros.nodes.bridge_parameters import BRIDGE_PARAMETERS
from lightvla_ros.nodes.conversions import (
    gripper_to_message,
    image_to_message,
    pose_to_message,
    time_message,
)
from lightvla_ros.nodes.spin import run_node
from lightvla_ros.sim.episode import EpisodeRunner, EpisodeSpec
from lightvla_ros.sim.libero_env import CAMERAS, LiberoEnv, SimulationError
from lightvla_ros.sim.recording import Recording, end_state
from lightvla_ros.sim.rendering import RenderingError

BREAK = 2 * 10**9  # ns between episodes
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class LiberoBridge(Node):
    """LIBERO as a robot.

    The simulation has a thread of its own, because a rendering context belongs to one thread and
    callbacks must never wait for a step. Callbacks only store.
    """

    def __init__(self, stop: threading.Event | None = None, **options) -> None:
        super().__init__('libero_bridge', **options)
        self.now = BREAK
        self._stop = stop or threading.Event()
        self._values = BRIDGE_PARAMETERS.declare(self)
        self._runner: EpisodeRunner | None = None
        self._env: LiberoEnv | None = None
        self._built: tuple = ()
        self._episode = 0
        self._frames = 0
        self._mail = threading.Condition()
        self._chunks: deque[ActionChunk] = deque(maxlen=64)
        self._reset = self._values.autostart
        self._clock_publisher = self.create_publisher(ClockMessage, '/clock', 10)
        self._image_publishers = {
            name: self.create_publisher(Image, f'{name}/image', 1) for name in CAMERAS
        }
        self._pose_publisher = self.create_publisher(PoseStamped, 'ee_pose', 1)
        self._gripper_publisher = self.create_publisher(JointState, 'gripper_state', 1)
        self._episode_publisher = self.create_publisher(String, '~/episode', LATCHED)
        self._result_publisher = self.create_publisher(String, '~/result', LATCHED)
        # the policy node's own name for it, so that nothing needs remapping in one namespace
        self.create_subscription(ActionChunk, 'lightvla/action_chunk', self._on_chunk, 10)
        self.create_service(Trigger, '~/reset', self._on_reset)
        # A node without any timer can sleep through SIGTERM.
        self.create_timer(1.0, lambda: None, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._thread = threading.Thread(target=self._simulate, name='simulation', daemon=True)
        self._thread.start()

    def shut_down(self) -> None:
        """End the simulation thread."""
        self._stop.set()
        with self._mail:
            self._mail.notify()
        self._thread.join(10.0)

    # Callbacks: they only store

    def _on_chunk(self, message: ActionChunk) -> None:
        with self._mail:
            self._chunks.append(message)
            self._mail.notify()

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self._mail:
            self._reset = True
            self._mail.notify()
        response.success = True
        response.message = 'the episode of the present parameters starts; see ~/episode'
        return response

    # The simulation thread

    def _simulate(self) -> None:
        while self._wait_for_reset():
            values = SimpleNamespace(**vars(self._values))
            spec = EpisodeSpec(values.suite, values.task, values.init_state, values.seed)
            try:
                self._run_episode(spec, values)
            except Exception as error:
                # whatever it was: an episode without a result would hang who waits for it
                self._publish_result(self._failed(spec, values, error))
        if self._env is not None:
            self._env.close()

    def _wait_for_reset(self) -> bool:
        with self._mail:
            self._mail.wait_for(lambda: self._reset or self._stop.is_set())
            self._reset = False
            self._chunks.clear()
        return not self._stop.is_set()

    def _run_episode(self, spec: EpisodeSpec, values: SimpleNamespace) -> None:
        self._runner = None
        self._prepare(spec, values)
        self._runner = EpisodeRunner(self._env, spec)
        self._episode += 1
        self._frames = 0
        self.now += BREAK
        self._publish_clock()
        self._episode_publisher.publish(
            String(
                data=json.dumps(
                    {
                        **vars(spec),
                        'episode': self._episode,
                        'instruction': self._env.instruction,
                        'start': self.now,
                        'max_steps': self._env.max_steps,
                    }
                )
            )
        )
        started, begun = time.monotonic(), self.now
        error = ''
        counts = EpisodeCounts()
        try:
            if values.mode == 'lockstep':
                counts = run_lockstep(
                    self, values.camera_every, values.resend_period, values.chunk_timeout
                )
            else:
                counts = run_wall_clock(self, values.camera_every, values.real_time_factor)
        except EpisodeAbortedError as aborted:
            error = str(aborted)
        took = time.monotonic() - started
        if values.recordings and not error:
            Recording(
                spec, self._runner.success, np.array(counts.actions), end_state(self._env)
            ).save(Path(values.recordings))
        self._publish_result(
            {
                **self._runner.result(error).as_dict(),
                **counts.as_dict(),
                'episode': self._episode,
                'mode': values.mode,
                'camera_size': values.camera_size,
                'frames': self._frames,
                'seconds': round(took, 3),
                'real_time_factor': round((self.now - begun) * 1e-9 / took, 3),
            }
        )

    def _prepare(self, spec: EpisodeSpec, values: SimpleNamespace) -> None:
        """Build the environment, unless the last one will do."""
        wanted = (spec.suite, spec.task)
        if self._built == wanted:
            return
        self._built = ()
        if self._env is not None:
            self._env.close()
            self._env = None
        self._env = LiberoEnv(spec.suite, spec.task, values.camera_size, values.render)
        self._built = wanted
        self.get_logger().info(
            f'{spec.suite} task {spec.task}: {self._env.instruction} (rendering with '
            f'{self._env.renderer}, {self._env.render_setting})'
        )

    def _failed(self, spec: EpisodeSpec, values: SimpleNamespace, error: Exception) -> dict:
        known = isinstance(error, SimulationError | RenderingError)
        text = str(error) if known else f'{type(error).__name__}: {error}'
        self._built = ()  # an environment that failed is not trusted again
        return {**vars(spec), 'episode': self._episode, 'success': False, 'error': text}

    def _publish_result(self, result: dict) -> None:
        outcome = result['error'] or ('success' if result['success'] else 'failure')
        log = self.get_logger()
        if result['error']:
            log.error(f'episode {result["episode"]}: {outcome}')
        else:
            log.info(f'episode {result["episode"]}: {outcome} after {result["steps"]} steps')
        self._result_publisher.publish(String(data=json.dumps(result)))

    # What the modes need; see bridge_modes.Robot

    def observe(self) -> None:
        """Publish images and state, stamped now. The only place that renders."""
        for name, image in self._env.render().items():
            self._image_publishers[name].publish(
                image_to_message(image, self.now, f'{name}_optical')
            )
        position, quaternion, fingers = self._env.state()
        self._pose_publisher.publish(
            pose_to_message(position, quaternion, self.now, self._values.base_frame)
        )
        self._gripper_publisher.publish(gripper_to_message(fingers, self.now))
        self._frames += 1

    def step(self, action: np.ndarray) -> bool:
        """Apply one action for one period."""
        finished = self._runner.step(action)
        self.now += PERIOD
        self._publish_clock()
        return finished

    def hold_action(self) -> np.ndarray:
        """Return the action that holds still."""
        return self._runner.hold_action()

    def wait_for_chunks(self, timeout: float) -> list[ActionChunk]:
        """Return what has come."""
        with self._mail:
            self._mail.wait_for(lambda: self._chunks or self._reset or self._stop.is_set(), timeout)
            if self._stop.is_set():
                raise EpisodeAbortedError('the bridge was stopped')
            if self._reset:
                raise EpisodeAbortedError('it was reset before its end')
            chunks = list(self._chunks)
            self._chunks.clear()
        return chunks

    def complain(self, text: str) -> None:
        """Log a warning at most every 5 s."""
        self.get_logger().warning(text, throttle_duration_sec=5.0)

    def _publish_clock(self) -> None:
        self._clock_publisher.publish(ClockMessage(clock=time_message(self.now)))


def main() -> int:
    """Run the bridge."""
    return run_node(LiberoBridge)


if __name__ == '__main__':
    sys.exit(main())
