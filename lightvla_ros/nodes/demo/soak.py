"""`lightvla bench soak`: whether the nodes grow, or miss anything, in a long run.

Policy, chunk executor and simulated arm run as processes of their own, by the clock, through one
episode after another of one task. Their memory, threads and open files are read from ``/proc``
every 10 s, from the end of the first episode on, when everything is loaded. What interrupted a
motion is counted by its reason.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.qos import DurabilityPolicy, QoSProfile

from lightvla_ros.contract import load_manifest
from lightvla_ros.contract.libero import CHUNK_LENGTH
from lightvla_ros.errors import BenchError
from lightvla_ros.machine import machine
from lightvla_ros.msg import VlaStatus
from lightvla_ros.nodes.demo.conductor import Conductor
from lightvla_ros.nodes.demo.processes import NodeGroup, isolate
from lightvla_ros.nodes.demo.report import reported_versions
from lightvla_ros.runtime.reasons import kind
from lightvla_ros.sim.episode import EpisodeSpec

SAMPLE_PERIOD = 10.0  # s
WARM_UP = 1 / 6  # part of the time that does not count: caches and pools fill
MEMORY_SLOPE = 1.0  # MB per hour; more is a leak
MEMORY_NOISE = 0.25  # MB that come and go within half a run, which is a steep slope in a short one
MEMORY_STEP = (
    2.0  # MB; growth in one half alone, as by a new pool of the allocator, is a fault above
)
STATUS_QOS = QoSProfile(depth=50, durability=DurabilityPolicy.TRANSIENT_LOCAL)
STATES = 20  # saved initial states that are run; the others are kept for evaluation
# what ends the motion of an episode and begins the next one
EXPECTED = (
    *('deactivated', 'reset', 'clock_jump', 'camera_missing'),
    *('no_instruction', 'instruction_changed'),
)


@dataclass(frozen=True)
class Sample:
    """What a process holds at a time.

    :param seconds: Since the start.
    :param memory: Anonymous memory: what the process itself has allocated [MB].
    """

    seconds: float
    memory: float
    threads: int
    files: int

    @classmethod
    def of(cls, process: int, seconds: float) -> Sample:
        """Read what a process holds from ``/proc``."""
        folder = Path('/proc') / str(process)
        lines = dict(line.split(':', 1) for line in (folder / 'status').read_text().splitlines())
        return cls(
            seconds,
            int(lines['RssAnon'].split()[0]) / 1024,
            int(lines['Threads']),
            len(list((folder / 'fd').iterdir())),
        )


@dataclass
class Soak:
    """One run.

    :param minutes: How long; the episode that runs then is finished.
    :param logs: Folder of the nodes' logs.
    """

    policy: Path
    minutes: float
    logs: Path
    results: list[dict[str, Any]] = field(default_factory=list)
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    interruptions: Counter[str] = field(default_factory=Counter)

    def run(self) -> dict[str, Any]:
        """Run it and return the figures.

        :raises BenchError: When no episode could be run.
        :raises ChildError: When a node died; the message holds the end of its log.
        """
        isolate()
        self._begin = math.inf
        nodes = NodeGroup(self.logs, lambda: self._sample(nodes))
        try:
            conductor = nodes.new_conductor()
            bridge = {
                'mode': 'wall_clock',
                'render': 'cheap',
                'controller': 'crisp',
                'camera_every': CHUNK_LENGTH // 2,  # the next chunk is there before one ends
            }
            nodes.start(bridge, 'policy_node', {'policy': self.policy})
            self._listen(conductor)
            manifest = load_manifest(self.policy)
            while self._begin + 60 * self.minutes > time.monotonic():
                spec = EpisodeSpec('libero_object', 0, len(self.results) % STATES, 0)
                result = conductor.run_episode(spec, manifest, None)
                if result['error']:
                    raise BenchError(f'{spec}: {result["error"]}; see {self.logs}')
                if math.isinf(self._begin):
                    self._begin = self._sampled = time.monotonic()
                    self.interruptions.clear()
                else:
                    self.results.append(result)
        finally:
            nodes.close()
        return self.report()

    def report(self) -> dict[str, Any]:
        """Return the figures."""
        return {
            'minutes': self.minutes,
            'episodes': len(self.results),
            'solved': sum(result['success'] for result in self.results),
            'steps': sum(result['steps'] for result in self.results),
            'overruns': sum(result['overruns'] for result in self.results),
            'interruptions': dict(self.interruptions),
            'processes': {name: growth(samples) for name, samples in self.samples.items()},
            'machine': machine(),
            'versions': reported_versions(),
        }

    def _sample(self, nodes: NodeGroup) -> None:
        now = time.monotonic()
        if math.isinf(self._begin) or now - self._sampled < SAMPLE_PERIOD:
            return
        self._sampled = now
        for name, process in nodes.processes.items():
            sample = Sample.of(process, now - self._begin)
            self.samples.setdefault(name, []).append(sample)

    def _listen(self, conductor: Conductor) -> None:
        last: dict[str, int] = {}

        def count(node: str, status: VlaStatus) -> None:
            stopped = last.get(node) == VlaStatus.RUNNING and status.state != VlaStatus.RUNNING
            last[node] = status.state
            if stopped and kind(status.reason) not in EXPECTED:
                self.interruptions[f'{node}: {kind(status.reason)}'] += 1

        for node in ('lightvla', 'chunk_executor'):
            callback = partial(count, node)
            conductor.create_subscription(VlaStatus, f'{node}/status', callback, STATUS_QOS)


def growth(samples: list[Sample]) -> dict[str, Any]:
    """Return how much of memory, threads and files a process has gained after the warm-up.

    :raises BenchError: When there are fewer than three samples after the warm-up.
    """
    warm = WARM_UP * max((each.seconds for each in samples), default=0.0)
    counted = [each for each in samples if each.seconds >= warm]
    if len(counted) < 3:
        raise BenchError('too short to see growth: give at least 1 minute')
    hours = np.array([each.seconds for each in counted]) / 3600
    memory = np.array([each.memory for each in counted])
    middle = len(memory) // 2
    halves = memory[: middle + 1], memory[middle:]
    return {
        'memory_mb': [round(float(memory[0]), 1), round(float(memory[-1]), 1)],
        'memory_gains_mb': [round(float(each[-1] - each[0]), 2) for each in halves],
        'memory_slope_mb_per_hour': round(float(np.polyfit(hours, memory, 1)[0]), 2),
        **{
            name: sorted({getattr(each, name) for each in counted}) for name in ('threads', 'files')
        },
    }


def table(report: dict[str, Any]) -> str:
    """Return the figures of :meth:`Soak.run` as text."""
    lines = [f'{"":<20}{"memory [MB]":>18}{"slope [MB/h]":>14}{"threads":>10}{"files":>10}']
    for name, process in report['processes'].items():
        first, last = process['memory_mb']
        spans = (f'{process[key][0]}-{process[key][-1]}' for key in ('threads', 'files'))
        lines.append(
            f'{name:<20}{f"{first:.1f} to {last:.1f}":>18}'
            f'{process["memory_slope_mb_per_hour"]:14.2f}'
            + ''.join(f'{span:>10}' for span in spans)
        )
    lines.append(
        f'{report["episodes"]} episodes, {report["solved"]} solved, {report["steps"]} steps in '
        f'{report["minutes"]:g} min; the simulator was late {report["overruns"]} times'
    )
    lines += [f'  {count} x {what}' for what, count in sorted(report['interruptions'].items())]
    return '\n'.join(lines)


def faults(report: dict[str, Any]) -> list[str]:
    """Return what has grown, one line for each process and thing; empty when nothing has.

    A leak goes on in both halves of the run. Growth in one half alone, which may be a new pool of
    the allocator, is a fault above ``MEMORY_STEP``.
    """
    found = []
    for name, process in report['processes'].items():
        slope, gains = process['memory_slope_mb_per_hour'], process['memory_gains_mb']
        grown = min(gains) > MEMORY_NOISE or sum(gains) > MEMORY_STEP
        if slope > MEMORY_SLOPE and grown:
            found.append(f'{name}: its memory grows by {slope} MB per hour')
        found += [
            f'{name}: its {thing} changed: {process[thing]}'
            for thing in ('threads', 'files')
            if len(process[thing]) > 1
        ]
    return found
