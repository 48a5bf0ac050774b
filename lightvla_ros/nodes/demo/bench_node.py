"""`lightvla bench node`: measures the time that the policy node adds outside the engine.

Another process publishes two 256 x 256 cameras and the state at 20 Hz. The node runs in this
process, so that its statistics of every chunk can be read. Every frame is due for inference. The
overhead of a chunk is the time from the arrival of its later image to the return of publish(),
minus preprocessing and both graphs.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

from lightvla_ros.contract import Manifest, load_manifest
from lightvla_ros.errors import BenchError
from lightvla_ros.machine import machine
from lightvla_ros.nodes.conversions import gripper_to_message, image_to_message, pose_to_message
from lightvla_ros.nodes.demo.measured_node import measured_node
from lightvla_ros.nodes.demo.report import reported_versions
from lightvla_ros.nodes.policy_node import PolicyNode
from lightvla_ros.policy.golden_file import read_golden
from lightvla_ros.policy.state import RobotState
from lightvla_ros.summary_statistics import percentiles

RATE = 20.0  # Hz
SIDE = 256  # px
STAGES = ('overhead', 'preprocess', 'encode', 'act', 'total')
WARM_UP = 20  # chunks that do not count
PATIENCE = 60.0  # s until the warm-up chunks must have come


LEAST_ROUND = 5.0  # s, with and without recording alternately


def measure_recording(policy: Path, seconds: float, threads: int) -> dict[str, Any]:
    """Measure with and without recording, alternately, each for ``seconds`` in all.

    :returns: Of each the figures of :func:`measure` by round, and the ratios of the overheads.
    :raises BenchError: Also when something was not recorded.
    """
    plain, recording = [], []
    rounds = max(1, int(seconds / LEAST_ROUND))
    for _ in range(rounds):
        plain.append(measure(policy, seconds / rounds, threads))
        with tempfile.TemporaryDirectory() as folder:
            recording.append(measure(policy, seconds / rounds, threads, folder))

    def overhead(reports: list[dict[str, Any]], which: str) -> float:
        return round(float(np.mean([each['overhead_ms'][which] for each in reports])), 3)

    found = {
        f'overhead_{which}_ms': {
            'plain': overhead(plain, which),
            'recording': overhead(recording, which),
            'ratio': round(overhead(recording, which) / overhead(plain, which), 3),
        }
        for which in ('p50', 'p95', 'p99')
    }
    return {**found, 'plain': plain, 'recording': recording}


def measure(policy: Path, seconds: float, threads: int, record_folder: str = '') -> dict[str, Any]:
    """Run the node on synthetic cameras for ``seconds`` and return the figures.

    :param record_folder: Where the node records; empty: it does not.
    :raises ContractError: When the policy folder cannot be trusted.
    :raises BenchError: When the node gives no chunks.
    """
    manifest = load_manifest(policy)  # reports a fault of the folder before any node is started
    overrides: dict[str, object] = {'replan_steps': 1}
    if record_folder:
        overrides |= {'record': True, 'record_folder': record_folder}
    with fed_node(policy, manifest, overrides | {'threads': threads}) as (node, sent):
        first = node.statistics.counts['sent']
        frames, fed, started = node.frames_received, sent.value, time.monotonic()
        time.sleep(seconds)
        received, given = node.frames_received - frames, sent.value - fed
        took, chunks = time.monotonic() - started, node.statistics.counts['sent'] - first
        times = {stage: node.statistics.milliseconds(stage)[-chunks:] for stage in STAGES}
        recorded = node.recorder.figures()
    figures = {f'{stage}_ms': percentiles(values, digits=3) for stage, values in times.items()}
    engine = times['encode'] + times['act']
    return {
        **figures,
        'engine_share': round(float(engine.sum() / times['total'].sum()), 3),
        'chunks': int(chunks),
        'chunks_per_second': round(chunks / took, 2),
        'frames_sent': int(given),
        # a frame or two may be under way when the counting starts or ends
        'frames_lost': max(0, int(given - received) - 4),
        'overhead_histogram_ms': _histogram(times['overhead']),
        'recorded': {key: str(value) for key, value in recorded.items()},
        'threads': threads,
        'machine': machine(),
        'load_average': os.getloadavg()[0],
        'versions': reported_versions(),
    }


@contextmanager
def fed_node(
    policy: Path, manifest: Manifest, parameters: dict[str, object], warm_up: int = WARM_UP
) -> Iterator[tuple[PolicyNode, Any]]:
    """Run a policy node on synthetic cameras; yield it and the number of frames, warmed up.

    :param warm_up: Chunks that are waited for.
    :raises BenchError: When the node gives no chunks.
    """
    names = tuple(camera.name for camera in manifest.cameras)
    instruction = str(read_golden(policy, manifest)['instruction'][-1])  # one that it knows
    # the synthetic robot is at the origin
    overrides = {'policy': str(policy), 'max_state_excess': 1e6, **parameters}
    with measured_node(PolicyNode, overrides, partial(feed, names, instruction)) as (node, sent):
        deadline = time.monotonic() + PATIENCE
        while node.statistics.counts['sent'] < warm_up:
            if time.monotonic() > deadline:
                raise BenchError(
                    f'{policy}: fewer than {warm_up} chunks in {PATIENCE:g} s; the log says why'
                )
            time.sleep(0.05)
        yield node, sent


def feed(names: tuple[str, ...], text: str, sent: Any, stop: Any) -> None:
    """Publish the cameras and the state at 20 Hz until ``stop`` is set (in its own process)."""
    rclpy.init()
    node = Node('feeder')
    cameras = [node.create_publisher(Image, f'{name}/image', 1) for name in names]
    pose = node.create_publisher(PoseStamped, 'ee_pose', 1)
    gripper = node.create_publisher(JointState, 'gripper_state', 1)
    instruction = node.create_publisher(String, 'instruction', 1)
    pictures = np.random.default_rng(0).integers(0, 256, (8, SIDE, SIDE, 3), np.uint8)
    state = RobotState(np.zeros(3), np.array([1.0, 0, 0, 0]), np.array([0.04, -0.04]))
    due, tick = time.monotonic(), 0
    while not stop.is_set():
        stamp = node.get_clock().now().nanoseconds
        pose.publish(pose_to_message(state, stamp, 'panda_link0'))
        gripper.publish(gripper_to_message(state, stamp))
        for index, camera in enumerate(cameras):
            camera.publish(image_to_message(pictures[(tick + index) % 8], stamp, 'camera'))
        sent.value += len(cameras)
        if tick % 10 == 0:
            instruction.publish(String(data=text))
        tick += 1
        due += 1 / RATE
        time.sleep(max(0.0, due - time.monotonic()))
    node.destroy_node()
    rclpy.shutdown()


def _histogram(values: np.ndarray) -> dict[str, int]:
    edges = (0, 0.5, 1, 1.5, 2, 3, 5, 10, np.inf)
    counts, _ = np.histogram(values, edges)
    return {
        f'{low:g} to {high:g}': int(count)
        for low, high, count in zip(edges, edges[1:], counts, strict=False)
    }


def recording_table(report: dict[str, Any]) -> str:
    """Return the figures of :func:`measure_recording` as text."""
    lines = ['overhead of the node, without and with recording:']
    for which in ('p50', 'p95', 'p99'):
        row = report[f'overhead_{which}_ms']
        lines.append(
            f'  {which}  {row["plain"]:.2f} ms, {row["recording"]:.2f} ms: {row["ratio"]:.2f} times'
        )
    last = report['recording'][-1]
    chunks, lost = (
        sum(each[name] for each in report['recording']) for name in ('chunks', 'frames_lost')
    )
    dropped = sum(
        int(count)
        for each in report['recording']
        for key, count in each['recorded'].items()
        if key.startswith('dropped')
    )
    lines.append(
        f'{chunks} chunks while recording, {lost} frames lost, {dropped} messages not recorded; '
        f'{last["recorded"]["megabytes"]} MB in the last round'
    )
    cpu = last['machine']
    lines.append(f'{cpu["cpu"]}, {cpu["cores"]} cores, load {last["load_average"]:.1f}')
    return '\n'.join(lines)


def table(report: dict[str, Any]) -> str:
    """Return the figures of :func:`measure` as text."""
    lines = [f'{"stage":<12}{"p50":>8}{"p95":>8}{"p99":>8}{"max":>8}  ms']
    for stage in STAGES:
        row = report[f'{stage}_ms']
        lines.append(f'{stage:<12}' + ''.join(f'{value:8.2f}' for value in row.values()))
    lines.append('overhead, distribution:')
    most = max(report['overhead_histogram_ms'].values())
    for edges, count in report['overhead_histogram_ms'].items():
        lines.append(f'  {edges + " ms":<14}{count:6}  {"#" * round(40 * count / most)}')
    lines.append(
        f'{report["chunks"]} chunks, {report["chunks_per_second"]} per second; the engine takes '
        f'{report["engine_share"]:.0%} of the time from image to chunk; '
        f'{report["frames_lost"]} of {report["frames_sent"]} frames lost'
    )
    cpu = report['machine']
    lines.append(f'{cpu["cpu"]}, {cpu["cores"]} cores, load {report["load_average"]:.1f}')
    return '\n'.join(lines)
