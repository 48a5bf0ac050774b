"""`lightvla bench executor`: the time from a chunk to the first command, and the command's jitter.

Another process publishes the pose at 100 Hz, chunks and the dead-man at 20 Hz, and takes the
commands. The executor runs in this process, so that its times can be read.
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from std_msgs.msg import Bool

from lightvla_ros.errors import BenchError
from lightvla_ros.machine import machine
from lightvla_ros.msg import ActionChunk
from lightvla_ros.nodes.chunk_executor_node import ChunkExecutorNode
from lightvla_ros.nodes.conversions import ChunkHeader, chunk_to_message, pose_to_message
from lightvla_ros.nodes.demo.measured_node import measured_node
from lightvla_ros.nodes.demo.report import reported_versions
from lightvla_ros.policy.actions import Chunk
from lightvla_ros.policy.state import RobotState
from lightvla_ros.summary_statistics import percentiles

RATE = 100.0  # Hz, of poses
CHUNK_EVERY = 5  # poses
STEPS = 8
WARM_UP = 20  # chunks that do not count
PATIENCE = 30.0  # s until the warm-up chunks must have come


def measure(seconds: float) -> dict[str, Any]:
    """Run the executor for ``seconds`` and return the figures.

    :raises BenchError: When it does not move.
    """
    with measured_node(ChunkExecutorNode, {}, feed) as (node, _):
        runner, deadline = node.runner, time.monotonic() + PATIENCE
        while len(runner.latencies) < WARM_UP or not runner.counts['commands']:
            if time.monotonic() > deadline:
                raise BenchError(f'no commands in {PATIENCE:g} s; the log says why')
            time.sleep(0.05)
        runner.latencies.clear()
        runner.intervals.clear()
        time.sleep(seconds)
        latencies, intervals = np.array(runner.latencies), np.array(runner.intervals)
        state = node.runner.counts
    jitter = np.abs(intervals - 1 / RATE)
    return {
        'chunk_to_command_ms': percentiles(1e3 * latencies, digits=3),
        'jitter_ms': percentiles(1e3 * jitter, digits=3),
        'chunks': len(latencies),
        'ticks': len(intervals),
        'refused': {name: count for name, count in state.items() if name.startswith('refused')},
        'machine': machine(),
        'load_average': os.getloadavg()[0],
        'versions': reported_versions(),
    }


def feed(sent: Any, stop: Any) -> None:
    """Publish pose, chunks and dead-man until ``stop`` is set (in its own process)."""
    rclpy.init()
    node = Node('feeder')
    poses = node.create_publisher(PoseStamped, 'ee_pose', 1)
    chunks = node.create_publisher(ActionChunk, 'lightvla/action_chunk', 1)
    enable = node.create_publisher(Bool, 'enable', 1)
    node.create_subscription(PoseStamped, 'target_pose', lambda _: None, 1)
    state = RobotState(np.array([0.5, 0.0, 0.3]), np.array([1.0, 0, 0, 0]))
    due, tick = time.monotonic(), 0
    while not stop.is_set():
        now = node.get_clock().now().nanoseconds
        poses.publish(pose_to_message(state, now, 'panda_link0'))
        if tick % CHUNK_EVERY == 0:
            enable.publish(Bool(data=True))
            chunks.publish(_chunk(now, tick))
            sent.value += 1
        tick += 1
        due += 1 / RATE
        time.sleep(max(0.0, due - time.monotonic()))
    node.destroy_node()
    rclpy.shutdown()


def _chunk(now: int, tick: int) -> ActionChunk:
    """Return a chunk that moves to and fro."""
    way = 0.01 if tick // CHUNK_EVERY % 2 else -0.01
    steps = np.tile([way, 0.0, 0.0], (STEPS, 1))
    chunk = Chunk(steps, np.tile([0.0, 0, 0, 1], (STEPS, 1)), np.ones(STEPS), 0.05)
    header = ChunkHeader(
        now,
        now + 200_000_000,
        tick,
        'bench',
        ActionChunk.REFERENCE_MEASURED_POSE,
        'panda_link0',
        'panda_hand_tcp',
    )
    return chunk_to_message(chunk, header)


def table(report: dict[str, Any]) -> str:
    """Return the figures of :func:`measure` as text."""
    lines = [f'{"":<18}{"p50":>8}{"p95":>8}{"p99":>8}{"max":>8}  ms']
    for name, text in (('chunk_to_command_ms', 'chunk to command'), ('jitter_ms', 'jitter')):
        lines.append(f'{text:<18}' + ''.join(f'{value:8.2f}' for value in report[name].values()))
    cpu = report['machine']
    lines.append(
        f'{report["chunks"]} chunks, {report["ticks"]} commands at {RATE:g} Hz; {cpu["cpu"]}, '
        f'{cpu["cores"]} cores, load {report["load_average"]:.1f}'
    )
    return '\n'.join(lines)
