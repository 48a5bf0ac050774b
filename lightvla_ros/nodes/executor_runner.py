"""Runs a chunk executor: its subscriptions fill it, and its ticks command arm and gripper.

Callbacks store, and a chunk is also executed at once. A steady timer ticks in between. In simulated
time a tick follows each measured pose instead, with the pose's stamp as the time, so that a
simulation of any speed moves in the same way.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode
from rclpy.subscription import Subscription
from std_msgs.msg import Bool

from lightvla_ros.errors import quoted
from lightvla_ros.msg import ActionChunk, VlaStatus
from lightvla_ros.nodes.arm_outputs import OUTPUTS
from lightvla_ros.nodes.conversions import (
    MessageError,
    chunk_from_message,
    stamp_ns,
)
from lightvla_ros.nodes.executor_parameters import limits_from
from lightvla_ros.nodes.graph_watch import GraphWatch
from lightvla_ros.nodes.gripper_client import GripperClient
from lightvla_ros.nodes.qos import ORDER_QOS, SENSOR_QOS, subscribe
from lightvla_ros.nodes.sampled_group import SampledGroup
from lightvla_ros.nodes.topic_graph import Topic
from lightvla_ros.policy.poses import Pose
from lightvla_ros.runtime.chunk_executor import ChunkExecutor
from lightvla_ros.runtime.chunk_timeline import ReceivedChunk
from lightvla_ros.runtime.inbox import FUTURE_TOLERANCE
from lightvla_ros.runtime.reasons import kind, reason
from lightvla_ros.runtime.safety_filter import Mode
from lightvla_ros.runtime.supervisor import State
from lightvla_ros.summary_statistics import percentiles

EXECUTIONS = {
    ActionChunk.REFERENCE_MEASURED_POSE: 'spring',
    ActionChunk.REFERENCE_PREVIOUS_TARGET: 'displacement',
}
LOOK_PERIOD = 0.1  # s between two looks at the controller
POSE_PERIOD = 0.004  # s between two poses that are read; robots send up to 1000 per second


class ExecutorRunner:
    """One configured executor; it commands nothing while it is not active.

    Methods are called from the node's callbacks.

    :param values: The node's parameters.
    :param report: Called with the state and its reason after each tick, and with what goes wrong.
    :raises TransitionError: When the controller's messages are not installed.
    :ivar latencies: From the arrival of a chunk to the return of publish() of the first command
        that belongs to it [s], the newest 10,000.
    :ivar intervals: Between two ticks of the timer [s], the newest 10,000.
    """

    def __init__(
        self,
        node: LifecycleNode,
        values: SimpleNamespace,
        report: Callable[[State, str], None],
    ) -> None:
        self.active = False
        self.counts: Counter[str] = Counter()
        self.latencies: deque[float] = deque(maxlen=10_000)
        self.intervals: deque[float] = deque(maxlen=10_000)
        self.instruction = ''
        self._node = node
        self._values = values
        self._report = report
        self._simulated = bool(node.get_parameter('use_sim_time').value)
        self._obstacles: dict[str, str] = {}  # why the arm must hold, by who says so
        self._moved = False
        self._stamp = 0  # of the newest pose [ns]
        self._ticked = 0.0
        self._sent = 0.0  # when the last command was published [s]
        self.executor = self._new_executor()
        self.output = OUTPUTS[values.controller](node, values, self._halt)
        self.gripper = None if values.gripper == 'none' else GripperClient(node, values)
        self._subscriptions: list[Subscription] = []
        inputs: list[Topic] = []

        def take(topic: str, kind: type, callback: Callable, *qos: Any, watched: bool) -> None:
            self._subscriptions.append(subscribe(node, kind, topic, callback, *qos))
            if watched:
                source = topic.rpartition('/')[2]
                inputs.append(Topic.of(node, source, topic, topic, kind))

        take('lightvla/action_chunk', ActionChunk, self._on_chunk, ORDER_QOS, watched=True)
        group = None if self._simulated else SampledGroup(POSE_PERIOD)
        take('ee_pose', PoseStamped, self._on_pose, SENSOR_QOS, group, watched=True)
        needed = bool(values.enable_timeout)
        take('enable', Bool, self._on_enable, SENSOR_QOS, watched=needed)
        # several nodes may stop the arm
        take('stop', Bool, self._on_stop, ORDER_QOS, watched=False)
        status = Topic.of(node, 'status', '~/status', '~/status', VlaStatus)
        self._graph = GraphWatch(
            node, inputs, [self.output.topic, status], lambda: False, self._on_graph
        )
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timers = [node.create_timer(LOOK_PERIOD, self._look, clock=steady)]
        if not self._simulated:
            self._timers.append(node.create_timer(1 / values.rate, self._on_timer, clock=steady))

    def start(self) -> None:
        """Follow the next session's chunks; earlier stops are forgotten."""
        self.executor = self._new_executor()
        if self.gripper is not None:
            self.gripper.forget()
        self._moved = False
        self._stamp = 0
        self._ticked = 0.0
        self.instruction = ''
        self.active = True
        self._look()

    def end(self, why: str) -> None:
        """Command a hold for the last time, and command nothing from then on."""
        self.executor.forget(why)
        self._tick(why)
        self.active = False

    def close(self) -> None:
        """Remove topics and timers."""
        self._graph.destroy()
        for timer in self._timers:
            self._node.destroy_timer(timer)
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        if self.gripper is not None:
            self.gripper.destroy()
        self.output.destroy()

    def reset(self) -> bool:
        """Leave a stop, and follow the session of the next chunk.

        :returns: Whether it is done; False while the commanded pose still comes to rest.
        """
        if not self.executor.reset():
            return False
        if self.gripper is not None:
            self.gripper.reset()
        self._moved = False
        self._look()
        return True

    def start_again(self, jump: int) -> None:
        """Forget the chunks, whose times mean nothing after a clock jump.

        :param jump: By how much ROS time jumped [ns].
        """
        self._stamp = 0
        self.executor.forget(reason('clock_jump', '', f'by {jump * 1e-9:.3f} s'))

    def advice(self) -> str:
        """Return one line that says what to do about topics without publishers."""
        missing = [source for source in ('action_chunk', 'ee_pose') if not self.counts[source]]
        if self._values.enable_timeout and not self.counts['enable']:
            missing.append('enable')
        return self._graph.advice(missing)

    def statistics(self) -> dict[str, float]:
        """Return counts of messages and bounds, jumps between chunks, percentiles of durations."""
        times = {'chunk_to_command': self.latencies, 'interval': self.intervals}
        return (
            dict(self.counts)
            | {f'gripper_{name}': count for name, count in self._gripper_counts().items()}
            | self.executor.seams.summary()
            | {
                f'{name}_{rank}_ms': round(1e3 * value, 3)
                for name, seconds in times.items()
                if seconds
                for rank, value in percentiles(seconds, ('p50', 'p99')).items()
            }
        )

    def _gripper_counts(self) -> dict[str, int]:
        return dict(self.gripper.counts) if self.gripper is not None else {}

    # Callbacks

    def _on_chunk(self, message: ActionChunk) -> None:
        arrived = time.perf_counter()
        if not self.active:
            return
        self.counts['action_chunk'] += 1
        try:
            received = self._received(message)
        except MessageError as error:
            self._refuse(reason('bad_chunk', '', str(error)))
        else:
            frames = (message.header.frame_id, message.child_frame_id)
            right = (self._values.base_frame, self._values.ee_frame)
            if len(received.chunk) and frames != right:
                text = ' and '.join(map(quoted, frames))
                self._refuse(reason('bad_frame', 'action_chunk', f'its frames are {text}'))
            else:
                why = self.executor.offer(received, self._ros_now())
                self.counts[f'refused:{kind(why)}' if why else 'accepted'] += 1
                self.instruction = message.instruction if len(received.chunk) else ''
        if not self._simulated:
            self._sent = 0.0
            self._tick()
            if self._sent:
                self.latencies.append(self._sent - arrived)

    def _received(self, message: ActionChunk) -> ReceivedChunk:
        if message.reference not in EXECUTIONS:
            raise MessageError(f'its reference is {message.reference}')
        return ReceivedChunk(
            chunk_from_message(message),
            stamp_ns(message.header.stamp),
            stamp_ns(message.valid_until),
            message.session_id,
            message.sequence,
            EXECUTIONS[message.reference],
            # another policy than ours may not say what it saw
            stamp_ns(message.stats.observation_stamp) or stamp_ns(message.header.stamp),
            message.reason,
        )

    def _refuse(self, why: str) -> None:
        self.counts[f'refused:{kind(why)}'] += 1
        self._node.get_logger().error(f'chunk refused: {why}', throttle_duration_sec=1.0)
        self.executor.forget(why)

    def _on_pose(self, message: PoseStamped) -> None:
        if not self.active:
            return
        self.counts['ee_pose'] += 1
        stamp, now = stamp_ns(message.header.stamp), self._ros_now()
        frame = message.header.frame_id
        why = ''
        if frame != self._values.base_frame:
            why = reason('bad_frame', 'ee_pose', f'its frame is {quoted(frame)}')
        elif stamp <= 0:
            why = reason('bad_stamp', 'ee_pose')
        elif stamp - now > FUTURE_TOLERANCE and not self._simulated:
            why = reason('future_stamp', 'ee_pose', f'by {(stamp - now) * 1e-9:.3f} s')
        self._obstacles['ee_pose'] = why
        if why or stamp < self._stamp:
            return
        self._stamp = stamp
        age = 0.0 if self._simulated else max(0.0, (now - stamp) * 1e-9)
        p, q = message.pose.position, message.pose.orientation
        # the filter itself judges whether the numbers are a pose, and holds if they are not
        pose = Pose(np.array([p.x, p.y, p.z]), np.array([q.x, q.y, q.z, q.w]))
        self.executor.measure(self._seconds() - age, pose)
        if self._simulated:
            self._tick()

    def _on_enable(self, message: Bool) -> None:
        if self.active:
            self.counts['enable'] += 1
            self.executor.filter.enable(self._seconds(), message.data)

    def _on_stop(self, message: Bool) -> None:
        if self.active and message.data:
            self.executor.filter.stop('operator_stop')
            self._tick()

    def _on_graph(self, why: str) -> None:
        self._obstacles['graph'] = why

    def _halt(self, detail: str) -> None:
        if self.active:
            self.executor.filter.stop('controller_halted', detail)

    def _look(self) -> None:
        if self.active:
            why = self._obstacles['controller'] = self.output.fault()
            if why and self._simulated:  # a simulator that has died sends no pose that is a tick
                self._report(self._state(Mode.HOLD), why)

    def _on_timer(self) -> None:
        now = time.monotonic()
        if self.active and self._ticked:
            self.intervals.append(now - self._ticked)
        self._ticked = now if self.active else 0.0
        self._tick()

    # Ticks

    def _tick(self, obstacle: str = '') -> None:
        """Decide what to send now, and send it."""
        if not self.active:
            return
        now, seconds, gripper = self._ros_now(), self._seconds(), self.gripper
        if gripper is not None:
            gripper.look(seconds)
            waits = gripper.moves and seconds - gripper.since >= self._values.hand_time
            self.executor.hand(gripper.moves, waits, now)
            self._obstacles['gripper'] = gripper.why
        obstacle = obstacle or next(filter(None, self._obstacles.values()), '')
        tick = self.executor.tick(seconds, now, obstacle)
        if gripper is not None and tick.gripper is not None:
            gripper.command(tick.gripper, seconds)
        command, measured = tick.command, self.executor.filter.measured
        if command.limited:
            self.counts[f'limited:{command.limited}'] += 1
        # Without a measured pose since the reset, there is no pose that could be held.
        if command.pose is not None and measured is not None:
            try:
                self.output.send(command, measured, now)
                self._sent = time.perf_counter()
                self.counts['commands'] += 1
            except Exception as error:
                self._halt(f'a command could not be published: {error!r}')
        self._moved |= command.mode is Mode.MOVE
        self._report(self._state(command.mode), command.why)

    def _state(self, mode: Mode) -> State:
        if mode is Mode.STOP:
            return State.FAULT
        if mode is Mode.MOVE:
            return State.RUNNING
        return State.HOLDING if self._moved else State.WAITING

    def _seconds(self) -> float:
        """Return the time of the safety filter [s]: steady, or that of the newest pose."""
        return self._stamp * 1e-9 if self._simulated else time.monotonic()

    def _ros_now(self) -> int:
        return self._stamp if self._simulated else self._node.get_clock().now().nanoseconds

    def _new_executor(self) -> ChunkExecutor:
        values = self._values
        return ChunkExecutor(limits_from(values), values.execution, values.blended, values.speed)
