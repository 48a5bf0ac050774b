"""Episodes through ROS for `lightvla eval`: policy node and LIBERO bridge in lockstep."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lightvla_ros.contract import load_manifest
from lightvla_ros.errors import EvaluationError
from lightvla_ros.evaluate.episodes import EpisodeRecord, EvalOptions, failed_record, state_digest
from lightvla_ros.nodes.demo.conductor import Conductor, EpisodeError
from lightvla_ros.nodes.demo.processes import NodeGroup
from lightvla_ros.nodes.demo.report import StageStatistics
from lightvla_ros.sim.episode import EpisodeSpec
from lightvla_ros.sim.recording import load_recording, recording_path

DOMAINS = 100
LONGEST_INFERENCE = 60.0  # s; simulated time stops in lockstep, so slow inference is not a fault


@contextmanager
def ros_episodes(
    options: EvalOptions, number: int
) -> Iterator[Callable[[EpisodeSpec], EpisodeRecord]]:
    """Yield a function that runs one episode; end the nodes afterwards.

    The first call starts the nodes. Logs are kept in a folder beside the result.

    :param number: Number of the worker; each worker has its own ROS domain.
    """
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    first = int(os.environ.get('ROS_DOMAIN_ID') or 1 + os.getppid() % DOMAINS)
    os.environ['ROS_DOMAIN_ID'] = str(first if number == 0 else 1 + (first + number) % DOMAINS)
    runner = RosRunner(options, options.out.with_suffix('.ros') / f'worker-{number}')
    try:
        yield runner.run
    finally:
        runner.close()


class RosRunner:
    """Runs episodes through nodes in their own processes.

    :param folder: Folder for the nodes' logs and, until they are read, the executed actions.
    """

    def __init__(self, options: EvalOptions, folder: Path) -> None:
        self._options = options
        self._manifest = load_manifest(options.policy)
        self._folder = folder
        self._nodes = NodeGroup(folder / 'logs')
        self._conductor: Conductor | None = None

    def run(self, spec: EpisodeSpec) -> EpisodeRecord:
        """Run an episode.

        :raises EvaluationError: When the policy cannot be loaded, or the episode does not exist.
        :raises ChildError: When a node died; the next episode starts both nodes again.
        :raises TimeoutError: When no result came; the next episode starts both nodes again.
        """
        if self._conductor is None:
            self._start()
        self._conductor.statistics = StageStatistics()
        try:
            result = self._conductor.run_episode(spec, self._manifest, None)
        except EpisodeError as error:
            raise EvaluationError(f'{spec}: {error} (in {self._folder})') from None
        except BaseException:
            self._nodes.stop()
            self._conductor = None
            raise
        return self._record(spec, result)

    def close(self) -> None:
        """End the nodes and the conductor."""
        self._nodes.close()

    def _start(self) -> None:
        # A new conductor: the last one still stores the status of a node that has ended.
        self._conductor = self._nodes.new_conductor()
        conditions = self._options.conditions
        bridge = {
            'mode': 'lockstep',
            'controller': conditions.controller,
            'render': conditions.render,
            'camera_size': conditions.camera_size,
            'camera_every': self._manifest.action.chunk_length,
            'recordings': self._folder / 'executed',
        }
        policy = {
            'policy': self._options.policy,
            'engine': conditions.engine,
            'provider': conditions.provider,
            'compile': conditions.compiled,
            'threads': conditions.threads,
            'max_inference_time': LONGEST_INFERENCE,
        }
        if conditions.precision is not None:  # a command line takes no empty value
            policy['precision'] = conditions.precision
        self._nodes.start(bridge, 'policy_node', policy)

    def _record(self, spec: EpisodeSpec, result: dict) -> EpisodeRecord:
        if result['error']:
            return failed_record(spec, result['error'])
        executed = recording_path(self._folder / 'executed', spec)
        digest = state_digest(load_recording(executed).end_state)
        executed.unlink()
        statistics = self._conductor.statistics
        stages = statistics.milliseconds
        return EpisodeRecord(
            **vars(spec),
            instruction=result['instruction'],
            success=result['success'],
            steps=result['steps'],
            seconds=round(result['seconds'], 2),
            renderer=result['renderer'],
            end_state=digest,
            motion=result['motion'],
            kept=statistics.kept,
            latency_ms=[
                round(preprocess + inference, 2)
                for preprocess, inference in zip(
                    stages.get('preprocess', []), stages.get('inference', []), strict=True
                )
            ],
        )
