"""`lightvla bench delays`: episodes whose observations come late, through all the real nodes.

The bridge simulates the arm with crisp's controller in wall-clock mode, the policy node and the
bridge are processes of their own, and the executor runs in this process, so that every seam can be
read. Time is simulated, so a slow machine can run everything at a part of the speed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rclpy.parameter import Parameter

from lightvla_ros.contract import Manifest, load_manifest
from lightvla_ros.errors import ArgumentError
from lightvla_ros.evaluate.journal import Journal
from lightvla_ros.files import one_writer, resource, write_text
from lightvla_ros.machine import REPORTED_VERSIONS, machine, versions
from lightvla_ros.msg import ActionChunk
from lightvla_ros.nodes.chunk_executor_node import ChunkExecutorNode
from lightvla_ros.nodes.conversions import stamp_ns
from lightvla_ros.nodes.demo.conductor import Conductor, EpisodeError
from lightvla_ros.nodes.demo.delay_report import (
    VARIANTS,
    DelayRecord,
    DelaySpec,
    Point,
    figures,
)
from lightvla_ros.nodes.demo.measured_node import spinning
from lightvla_ros.nodes.demo.processes import ChildError, NodeGroup, isolate
from lightvla_ros.nodes.demo.report import Progress
from lightvla_ros.sim.episode import EpisodeSpec

CONFIG = 'config/libero.param.yaml'
# An observation is up to a delay and a horizon old before the next one comes [s]. Poses come every
# 10 ms, and one of them may be lost. (Set when it runs: a file's section for a node beats `-p`.)
POLICY = {'max_image_age': 2.0, 'max_state_skew': 0.02}


@dataclass(frozen=True)
class DelayOptions:
    """Options of ``lightvla bench delays``.

    :param out: The JSON file of the result; the journal is stored beside it.
    :param real_time_factor: Speed of simulated time; so low that rendering a frame does not take
        longer than a control period.
    """

    policy: Path
    points: tuple[Point, ...]
    episodes: tuple[EpisodeSpec, ...]
    out: Path
    real_time_factor: float
    render: str

    @property
    def specs(self) -> tuple[DelaySpec, ...]:
        """Every episode at all points, episode by episode: a new scene takes time to build."""
        return tuple(DelaySpec(p, episode) for episode in self.episodes for p in self.points)


def measure(options: DelayOptions) -> dict[str, Any]:
    """Run the episodes that the journal lacks, write the result and return it.

    The result has the figures of every point in the journal, also of earlier runs.

    :raises ContractError: When the policy folder cannot be trusted.
    :raises ArgumentError: When a horizon is longer than a chunk of the policy.
    :raises EvaluationError: When the journal was begun with other settings.
    """
    manifest = load_manifest(options.policy)
    longest = max(point.horizon for point in options.points)
    if longest > manifest.action.chunk_length:
        raise ArgumentError(
            f'--horizon {longest}: a chunk of {manifest.name} has '
            f'{manifest.action.chunk_length} steps'
        )
    header = {
        'policy': {'name': manifest.name, 'fingerprint': manifest.fingerprint},
        'real_time_factor': options.real_time_factor,
        'render': options.render,
        'versions': versions(REPORTED_VERSIONS),
    }
    say = Progress()
    with (
        one_writer(options.out, options.out.with_suffix('.lock')),
        Journal(options.out.with_suffix('.jsonl'), header, DelayRecord) as journal,
    ):
        done = journal.records
        left = [spec for spec in options.specs if spec not in done or done[spec].error]
        runner = DelayRunner(options, manifest, options.out.with_suffix('.logs'))
        try:
            for number, spec in enumerate(left, start=1):
                record = runner.run(spec)
                journal.add(record)
                outcome = record.error or ('solved' if record.success else 'not solved')
                say(f'{number}/{len(left)} {spec.point}: {spec.episode}: {outcome}')
        finally:
            runner.close()
        document = {
            **header,
            'machine': machine(),
            'points': figures(list(done.values())),
        }
        write_text(options.out, json.dumps(document, indent=1) + '\n')
    return document


class DelayRunner:
    """Runs episodes at points; a new point changes parameters, and starts a new executor.

    :param logs: Folder of the nodes' logs.
    """

    def __init__(self, options: DelayOptions, manifest: Manifest, logs: Path) -> None:
        isolate()
        self._options = options
        self._manifest = manifest
        self._nodes = NodeGroup(logs)
        self._conductor: Conductor | None = None
        self._late: list[float] = []

    def run(self, spec: DelaySpec) -> DelayRecord:
        """Run an episode; an episode that could not be finished is a record with an error."""
        if self._conductor is None:
            self._start()
        self._late = []
        point, (_, executor) = spec.point, VARIANTS[spec.point.variant]
        try:
            with _executor(executor) as node:
                self._set(point)
                result = self._conductor.run_episode(spec.episode, self._manifest, None)
                seams = node.runner.executor.seams
        except (ChildError, EpisodeError, TimeoutError) as error:
            self._nodes.stop()
            self._conductor = None
            return DelayRecord.of(spec, error=str(error))
        if result['error']:
            return DelayRecord.of(spec, error=result['error'])
        return DelayRecord.of(
            spec,
            **{name: result[name] for name in ('success', 'steps', 'seconds', 'overruns')},
            real_time_factor=result['real_time_factor'],
            gaps=seams.gaps,
            jumps=[[round(size, 6) for size in jump] for jump in seams.jumps],
            late_ms=self._late,
        )

    def close(self) -> None:
        """End the nodes."""
        self._nodes.close()

    def _start(self) -> None:
        # a new one: the last one still stores the status of a node that has ended
        self._conductor = self._nodes.new_conductor()
        self._conductor.create_subscription(
            ActionChunk, 'lightvla/action_chunk', self._on_chunk, 10
        )
        options = self._options
        bridge = {
            'mode': 'wall_clock',
            'controller': 'crisp',
            'render': options.render,
            'real_time_factor': options.real_time_factor,
        }
        self._nodes.start(bridge, 'policy_node', {'policy': options.policy}, executor=False)

    def _set(self, point: Point) -> None:
        bridge = {
            'observation_delay': point.delay_ms * 1e-3,
            'observation_jitter': point.jitter_ms * 1e-3,
            'observation_loss': point.loss,
            'camera_every': point.horizon,
        }
        policy = {'roll_state': False, 'replan_steps': point.horizon, **POLICY}
        self._conductor.set_parameters('libero_bridge', bridge)
        self._conductor.set_parameters('lightvla', policy | VARIANTS[point.variant][0])

    def _on_chunk(self, message: ActionChunk) -> None:
        if message.steps:
            start, seen = stamp_ns(message.header.stamp), stamp_ns(message.stats.observation_stamp)
            self._late.append(round((start - seen) * 1e-6, 3))


@contextmanager
def _executor(parameters: dict[str, object]) -> Iterator[ChunkExecutorNode]:
    """Run a chunk executor in this process."""
    node = ChunkExecutorNode(
        cli_args=['--ros-args', '--params-file', str(resource(CONFIG))],
        parameter_overrides=[Parameter(k, value=v) for k, v in parameters.items()],
    )
    with spinning(node):
        yield node
