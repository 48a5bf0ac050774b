"""Runs `lightvla demo`: processes, episodes, comparison with the recordings, and the summary."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from lightvla_ros.contract import Manifest, load_manifest
from lightvla_ros.contract.libero import CHUNK_LENGTH
from lightvla_ros.files import one_writer
from lightvla_ros.nodes.demo.conductor import Conductor
from lightvla_ros.nodes.demo.processes import NodeGroup, isolate
from lightvla_ros.nodes.demo.report import (
    SUMMARY,
    DemoOptions,
    Progress,
    compare,
    summary,
    write_summary,
)
from lightvla_ros.nodes.spin import on_ending_signals
from lightvla_ros.sim.episode import EpisodeSpec
from lightvla_ros.sim.recording import load_recording, record_all, recording_path

VIDEO_CAMERA_EVERY = 2


class StoppedError(Exception):
    """The user pressed Ctrl-C."""


class Demo:
    """One run of the demo."""

    def __init__(self, options: DemoOptions) -> None:
        self._options = options
        self._progress = Progress()
        self._stop = threading.Event()
        self._results: list[dict] = []
        self._replays: list[dict] = []

    def run(self) -> int:
        """Run all episodes, and write the summary even after an error.

        :returns: 0 when nothing failed, 1 otherwise, 130 after Ctrl-C.
        """
        on_ending_signals(self._stop.set)
        isolate()
        options = self._options
        finished = False
        nodes = NodeGroup(options.out / 'logs', self._raise_if_stopped)
        conductor = nodes.new_conductor()
        try:
            if options.replays:
                recordings = self._record()
                with self._started(nodes, 'replay_node', {'recordings': recordings}):
                    for spec in options.replays:
                        self._replay(conductor, spec)
            if options.episodes:
                policy = load_manifest(options.policy)
                with self._started(nodes, 'policy_node', {'policy': options.policy}):
                    for spec in options.episodes:
                        self._episode(conductor, spec, policy)
            finished = True
            code = int(self._failed())
        except StoppedError:
            self._progress('stopped')
            code = 130
        finally:
            nodes.close()
            document = summary(
                options, self._results, self._replays, conductor.statistics, finished
            )
            path = write_summary(options.out, document)
        self._say_how_it_went(document, path)
        return code

    def _record(self) -> Path:
        """Run the scripted expert directly in the simulator, for comparison with the replay.

        Recordings are never reused: an older one may come from another simulator version.
        """
        folder, specs = self._options.out / 'recordings', self._options.replays
        self._progress(f'recording the scripted expert directly: {len(specs)} episodes')
        for number, recording in enumerate(record_all(specs), start=1):
            recording.save(folder)
            outcome = 'success' if recording.success else 'failure'
            self._progress(
                f'  recorded {number}/{len(specs)} {recording.spec}: {outcome} after '
                f'{len(recording.actions)} steps'
            )
            self._raise_if_stopped()
        return folder

    @contextlib.contextmanager
    def _started(
        self, nodes: NodeGroup, answers: str, parameters: dict[str, object]
    ) -> Iterator[None]:
        """Start the bridge and the policy or replay node; end both afterwards."""
        options = self._options
        # in wall clock every frame costs time in which the robot should move
        own = options.mode == 'lockstep' and options.controller == 'osc'
        film_between = options.video and own  # a controller twin wants a chunk for each frame
        bridge = {
            'render': options.render,
            'mode': options.mode,
            'controller': options.controller,
            'camera_size': options.camera_size,
            'camera_every': VIDEO_CAMERA_EVERY if film_between else CHUNK_LENGTH,
            'recordings': options.out / 'executed',
        }
        nodes.start(bridge, answers, parameters)
        try:
            yield
        finally:
            self._progress('ending the nodes')
            nodes.stop()

    def _replay(self, conductor: Conductor, spec: EpisodeSpec) -> None:
        video = self._video(spec, 'replay')
        through_ros = conductor.run_episode(spec, None, video)
        direct = load_recording(recording_path(self._options.out / 'recordings', spec))
        comparison = {
            'spec': vars(spec),
            'video': video and video.name,
            'through_ros': through_ros,
            **compare(direct, through_ros, recording_path(self._options.out / 'executed', spec)),
        }
        self._replays.append(comparison)
        verdict = 'same outcome as direct' if comparison['same_outcome'] else 'DIFFERS from direct'
        self._tell(spec, through_ros, f'{verdict}, replay {len(self._replays)}')

    def _episode(self, conductor: Conductor, spec: EpisodeSpec, policy: Manifest) -> None:
        video = self._video(spec, 'episode')
        result = conductor.run_episode(spec, policy, video)
        self._results.append({**result, 'video': video and video.name})
        valid = [r for r in self._results if not r['error']]
        solved = sum(r['success'] for r in valid)
        self._tell(spec, result, f'{solved}/{len(valid)} solved')

    def _tell(self, spec: EpisodeSpec, result: dict, text: str) -> None:
        outcome = result['error'] or ('success' if result['success'] else 'not solved')
        details = f'{result["steps"]} steps, {result["seconds"]} s' if 'seconds' in result else ''
        self._progress(f'{spec}: {outcome} ({details}); {text}')

    def _video(self, spec: EpisodeSpec, kind: str) -> Path | None:
        if not self._options.video:
            return None
        name = f'{kind}-{spec.suite}-{spec.task}-{spec.init_state}.mp4'
        return self._options.out / name

    def _failed(self) -> bool:
        return any(result['error'] for result in self._results) or not all(
            replay['same_outcome'] for replay in self._replays
        )

    def _raise_if_stopped(self) -> None:
        if self._stop.is_set():
            raise StoppedError

    def _say_how_it_went(self, document: dict, path: Path) -> None:
        replay = document['replay']
        if replay['episodes']:
            error = replay['max_round_trip_error']
            largest = 'unknown' if error is None else f'{error:.1e}'
            self._progress(
                f'replay: {replay["same_outcome"]} of {replay["episodes"]} episodes end through '
                f'ROS as they do directly, {replay["same_end_state"]} in exactly the same state; '
                f'largest round-trip error of an action {largest}'
            )
        if document['results']:
            kept = document['kept_tokens'].get('all', {})
            self._progress(
                f'policy {document["policy"]}: {document["successes"]} of {document["episodes"]} '
                f'episodes solved, {document["chunks"]} chunks, kept tokens '
                f'{kept.get("mean")} +- {kept.get("sd")}'
            )
        beside = '; the videos are in the same folder' if self._options.video else ''
        self._progress(f'the figures are in {path}{beside}')


def run_demo(options: DemoOptions) -> int:
    """Run the demo; see :meth:`Demo.run`."""
    with one_writer(options.out):
        (options.out / SUMMARY).unlink(missing_ok=True)  # an old one must not remain if this fails
        return Demo(options).run()
