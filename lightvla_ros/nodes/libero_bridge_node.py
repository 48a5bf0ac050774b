"""The LIBERO bridge: a simulated Panda that looks like a robot to the policy node.

It publishes ``/clock``, both cameras and the state, executes action chunks, and publishes each
episode's result. Simulated time keeps counting across episodes and jumps ahead by 2 s between two
of them, so that a policy notices the break; it never goes back.

``~/episode`` and ``~/result`` are latched JSON. An episode: ``episode`` (its number), ``suite``,
``task``, ``init_state``, ``seed``, ``instruction``, ``start`` (its first stamp [ns]),
``max_steps``, ``base_frame``. A result: the fields of :class:`EpisodeResult` and of
:class:`EpisodeCounts`, ``episode``, ``mode``, ``camera_size``, ``frames`` (observations sent),
``seconds`` and ``real_time_factor``. The result of an episode that could not begin holds its spec
and ``error``.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from std_srvs.srv import Trigger

from lightvla_ros.contract.libero import PERIOD
from lightvla_ros.errors import RenderingError, SimulationError
from lightvla_ros.msg import ActionChunk
from lightvla_ros.nodes.bridge_modes import (
    EpisodeAbortedError,
    EpisodeCounts,
    run_lockstep,
    run_wall_clock,
)
from lightvla_ros.nodes.bridge_output import BridgeOutput
from lightvla_ros.nodes.bridge_parameters import BRIDGE_PARAMETERS
from lightvla_ros.nodes.controller_twin import TWINS, ControllerTwin
from lightvla_ros.nodes.conversions import nanoseconds
from lightvla_ros.nodes.parameters import ParameterError
from lightvla_ros.nodes.qos_overrides import unused_override
from lightvla_ros.nodes.spin import run_node
from lightvla_ros.nodes.twin_modes import (
    TICK,
    CameraLink,
    run_twin_by_the_clock,
    run_twin_in_lockstep,
)
from lightvla_ros.sim.episode import EpisodeRunner, EpisodeSpec
from lightvla_ros.sim.libero_env import LiberoEnv
from lightvla_ros.sim.recording import Recording, end_state

BREAK = 2 * 10**9  # ns between episodes


class LiberoBridge(Node):
    """Node that simulates a robot in LIBERO.

    The simulation has its own thread, because a rendering context belongs to one thread and
    callbacks must never wait for a step. Callbacks only store.
    """

    def __init__(self, stop: threading.Event | None = None, **options) -> None:
        super().__init__('libero_bridge', **options)
        self._values = BRIDGE_PARAMETERS.declare(self)
        self.now = self._begun = BREAK
        self.base_frame = self._values.base_frame
        self._stop = stop or threading.Event()
        self._runner: EpisodeRunner | None = None
        self._env: LiberoEnv | None = None
        self._built = ()
        self._episode = self._frames = 0
        self._mail = threading.Condition()
        self._chunks: deque[ActionChunk] = deque(maxlen=64)
        self._reset = self._values.autostart
        self._output = BridgeOutput(self, self.base_frame)
        self._twin: ControllerTwin | None = None
        if self._values.controller in TWINS:
            self._twin = TWINS[self._values.controller](self, self.base_frame, self._on_command)
        self._later: deque[tuple[int, int, dict[str, np.ndarray]]] = deque()
        # the policy node's name for this topic, so that one namespace needs no remapping
        self.create_subscription(ActionChunk, 'lightvla/action_chunk', self._on_chunk, 10)
        self.create_service(Trigger, '~/reset', self._on_reset)
        # A node without any timer can sleep through SIGTERM.
        self.create_timer(1.0, lambda: None, clock=Clock(clock_type=ClockType.STEADY_TIME))
        fault = unused_override(self)
        if fault:
            raise ParameterError(fault)
        self._thread = threading.Thread(target=self._simulate, name='simulation', daemon=True)
        self._thread.start()

    def shut_down(self) -> None:
        """End the simulation thread, unless it is building a scene, which cannot be interrupted."""
        self._stop.set()
        with self._mail:
            self._mail.notify()
        self._thread.join(3.0)

    # Callbacks: they only store

    def _on_chunk(self, message: ActionChunk) -> None:
        with self._mail:
            self._chunks.append(message)
            self._mail.notify()

    def _on_command(self) -> None:
        with self._mail:
            self._mail.notify()

    def _on_reset(self, *_: object) -> Trigger.Response:
        with self._mail:
            self._reset = True
            self._mail.notify()
        return Trigger.Response(success=True, message='the episode starts; see ~/episode')

    # The simulation thread

    def _simulate(self) -> None:
        while self._wait_for_reset():
            values = SimpleNamespace(**vars(self._values))
            spec = EpisodeSpec(values.suite, values.task, values.init_state, values.seed)
            self._episode += 1
            try:
                result = self._run_episode(spec, values)
            except Exception as error:
                # any error: without a result, a client that waits for it would hang
                result = self._failed(spec, error)
            if self._stop.is_set():
                break  # the node may be gone by now
            self._publish_result(result)
        if self._env is not None:
            self._env.close()

    def _wait_for_reset(self) -> bool:
        with self._mail:
            self._mail.wait_for(lambda: self._reset or self._stop.is_set())
            self._reset = False
            self._chunks.clear()
        return not self._stop.is_set()

    def _run_episode(self, spec: EpisodeSpec, values: SimpleNamespace) -> dict:
        self._prepare(spec, values)
        self._runner = EpisodeRunner(self._env, spec)
        self._check_interrupted()
        self._frames = 0
        self.now += BREAK
        self._output.clock(self.now)
        self._output.episode(
            {
                **vars(spec),
                'episode': self._episode,
                'instruction': self._env.instruction,
                'start': self.now,
                'max_steps': self._env.max_steps,
                'base_frame': self.base_frame,
            }
        )
        started, self._begun = time.monotonic(), self.now
        error = ''
        counts = EpisodeCounts()
        try:
            self._run_mode(counts, values)
        except EpisodeAbortedError as aborted:
            error = str(aborted)
        took = time.monotonic() - started
        if values.recordings and not error:
            Recording(
                spec, self._runner.success, np.array(counts.actions), end_state(self._env)
            ).save(Path(values.recordings))
        return {
            **self._runner.result(error).as_dict(),
            **counts.as_dict(),
            'episode': self._episode,
            'mode': values.mode,
            'camera_size': values.camera_size,
            'frames': self._frames,
            'seconds': round(took, 3),
            'real_time_factor': round((self.now - self._begun) * 1e-9 / took, 3),
        }

    def _run_mode(self, counts: EpisodeCounts, values: SimpleNamespace) -> None:
        """Run an episode in the mode and with the controller that the parameters choose."""
        every = values.camera_every
        patience = (values.resend_period, values.chunk_timeout)
        lockstep = values.mode == 'lockstep'
        if self._twin is None:
            if lockstep:
                run_lockstep(self, counts, every, *patience)
            else:
                run_wall_clock(self, counts, every, values.real_time_factor)
            return
        self._twin.start(self._env)
        self._later.clear()
        try:
            if lockstep:
                run_twin_in_lockstep(self, counts, every, *patience)
            else:
                link = CameraLink(
                    nanoseconds(values.observation_delay),
                    nanoseconds(values.observation_jitter),
                    values.observation_loss,
                )
                delays = link.delays(values.seed)
                run_twin_by_the_clock(self, counts, every, values.real_time_factor, delays)
        finally:
            self._twin.end()

    def _prepare(self, spec: EpisodeSpec, values: SimpleNamespace) -> None:
        """Build the environment, unless the last one can be used again."""
        wanted = (spec.suite, spec.task, values.camera_size, values.render)
        if self._built == wanted:
            return
        self._built = ()
        if self._env is not None:
            self._env.close()
            self._env = None
        self._env = LiberoEnv(*wanted)
        self._built = wanted
        self.get_logger().info(
            f'{spec.suite} task {spec.task}: {self._env.instruction} (rendering with '
            f'{self._env.renderer}, {self._env.render_setting})'
        )

    def _failed(self, spec: EpisodeSpec, error: Exception) -> dict:
        known = isinstance(error, EpisodeAbortedError | RenderingError | SimulationError)
        text = str(error) if known else f'{type(error).__name__}: {error}'
        if not known:
            self._built = ()  # an environment that failed is not used again
        return {**vars(spec), 'episode': self._episode, 'success': False, 'error': text}

    def _publish_result(self, result: dict) -> None:
        title = f'episode {result["episode"]}'
        if result['error']:
            self.get_logger().error(f'{title}: {result["error"]}')
        else:
            outcome = 'success' if result['success'] else 'failure'
            self.get_logger().info(f'{title}: {outcome} after {result["steps"]} steps')
        self._output.result(result)

    # The methods that the modes call; see bridge_modes.Robot

    def observe(self) -> None:
        """Publish images and state, stamped now. The only place that renders."""
        self._output.observation(self._env.render(), self._env.state(), self.now)
        self._frames += 1

    def step(self, action: np.ndarray) -> bool:
        """Apply one action for one period."""
        self._check_interrupted()
        finished = self._runner.step(action)
        self.now += PERIOD
        self._output.clock(self.now)
        return finished

    # Those that the modes with a controller twin call; see twin_modes.TwinRobot

    def report(self) -> None:
        """Publish the measured pose and the fingers, stamped now."""
        self._output.state(self._env.state(), self.now)

    def wait_for_command(self, timeout: float) -> bool:
        """Wait for a command stamped now."""
        with self._mail:
            self._mail.wait_for(
                lambda: self._twin.answered == self.now or self._reset or self._stop.is_set(),
                timeout,
            )
            self._check_interrupted()
            answered = self._twin.answered == self.now
            self._twin.answered = 0
        return answered

    def tick(self) -> bool:
        """Run controller and physics for a tick."""
        self._check_interrupted()
        while self._later and self._later[0][0] <= self.now:
            _, stamp, images = self._later.popleft()
            self._output.images(images, stamp)  # the state of that time was reported then
            self._frames += 1
        self._twin.act(self.now * 1e-9)
        solved = self._twin.arm.run(TICK * 1e-9)
        self._twin.arm.refresh()
        self.now += TICK
        self._output.clock(self.now)
        return self._runner.count(solved, (self.now - self._begun) * 1e-9)

    def observe_later(self, due: int) -> None:
        """Render now, and publish when simulated time is ``due``, and not before the last one."""
        if self._later:  # as a network keeps the order of a stream
            due = max(due, self._later[-1][0])
        self._later.append((due, self.now, self._env.render()))

    def hold_action(self) -> np.ndarray:
        """Return the action that holds still."""
        return self._runner.hold_action()

    def wait_for_chunks(self, timeout: float) -> list[ActionChunk]:
        """Return the chunks that have arrived."""
        with self._mail:
            self._mail.wait_for(lambda: self._chunks or self._reset or self._stop.is_set(), timeout)
            self._check_interrupted()
            chunks = list(self._chunks)
            self._chunks.clear()
        return chunks

    def complain(self, text: str) -> None:
        """Log a warning at most every 5 s."""
        self.get_logger().warning(text, throttle_duration_sec=5.0)

    def _check_interrupted(self) -> None:
        if self._stop.is_set():
            raise EpisodeAbortedError('the bridge was stopped')
        if self._reset:
            raise EpisodeAbortedError('the episode was reset before its end')


def main() -> int:
    """Run the bridge."""
    code = run_node(LiberoBridge)
    if any(thread.name == 'simulation' for thread in threading.enumerate()):
        # The thread is building a scene and has nothing to save. Ending the interpreter while a
        # thread is inside OpenGL causes a segmentation fault.
        sys.stderr.flush()
        os._exit(code)
    return code


if __name__ == '__main__':
    sys.exit(main())
