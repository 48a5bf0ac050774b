"""What the page is told: the node's state, the cameras' pictures, and the chunks.

Everything is read while the node goes on, from the threads of the web server. Nothing here waits
for the node, and the node waits for nothing here but a glance into the inbox.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from lightvla_ros.contract import Manifest
from lightvla_ros.nodes.policy_inputs import measured_state
from lightvla_ros.nodes.policy_outputs import SentChunk
from lightvla_ros.nodes.policy_runner import PolicyRunner
from lightvla_ros.nodes.status_report import STATE_NAMES, StatusReport
from lightvla_ros.nodes.view.pictures import SmallPictures, patch_area
from lightvla_ros.policy.calibration import Calibration
from lightvla_ros.policy.poses import Pose
from lightvla_ros.policy.preprocessor import upright_mask
from lightvla_ros.runtime.expected_path import expected_path
from lightvla_ros.runtime.inbox import Stamped
from lightvla_ros.runtime.reasons import REASONS, kind


def status_of(report: StatusReport, runner: PolicyRunner | None, advice: str) -> dict[str, Any]:
    """Return the state and why, in words that the page shows as they are."""
    policy = runner.policy if runner else None
    code = kind(report.reason).partition(':')[0]
    return {
        'state': STATE_NAMES[report.state],
        'reason': report.reason,
        'meaning': REASONS.get(code, ''),
        'advice': advice,
        'instruction': report.instruction,
        'example': runner.inputs.example if runner else '',
        'rejected': report.instruction_rejected,
        'active': bool(runner and runner.supervisor.active),
        'paused': bool(runner and runner.supervisor.paused),
        'chunks': report.chunks,
        'policy': f'{policy.manifest.name} {policy.manifest.fingerprint[:12]}' if policy else '',
        'engine': f'{policy.engine.backend}, {policy.engine.precision}' if policy else '',
    }


def cameras_of(
    manifest: Manifest, frames: Mapping[str, Stamped], shown: dict[str, int], small: SmallPictures
) -> list[dict[str, Any]]:
    """Return each camera's picture, if it is not the one that was shown before.

    :param frames: A frame of each camera that has one.
    :param shown: Stamps of what has been shown, by camera; updated.
    """
    now, cameras = time.monotonic_ns(), []
    for camera in manifest.cameras:
        about: dict[str, Any] = {'name': camera.name}
        frame = frames.get(camera.name)
        if frame is not None:
            about['age'] = round((now - frame.arrived) * 1e-9, 3)
        if frame is not None and shown.get(camera.name) != frame.stamp:
            shown[camera.name] = frame.stamp
            picture = small.of(camera.name, frame)
            about |= picture
            if 'jpeg' in picture:
                size = picture['width'], picture['height']
                about['area'] = patch_area(*size, camera, manifest.preprocessing.crop_area)
        cameras.append(about)
    return cameras


def chunk_of(
    sent: SentChunk, manifest: Manifest, calibrations: Mapping[str, Calibration]
) -> dict[str, Any]:
    """Return a chunk: the patches that were kept, and the way that the arm is expected to go."""
    rows, columns = manifest.patch_grid
    masks = np.zeros((len(manifest.cameras), rows, columns), dtype=np.uint8)
    masks.reshape(-1)[sent.result.prediction.kept_patches] = 1
    state = measured_state(sent.job)
    paths = {}
    if state.position is not None and state.quaternion is not None:
        start = Pose(state.position, state.quaternion)
        poses = expected_path(start, sent.chunk, manifest.action.execution)
        points = np.array([pose.position for pose in poses])
        paths = {
            name: {'aspect': each.width / each.height, 'places': each.places(points)}
            for name, each in calibrations.items()
        }
    return {
        'at': sent.published * 1e-9,
        'lasts': sent.chunk.period * len(sent.chunk),
        'rows': rows,
        'columns': columns,
        'kept': {
            camera.name: np.flatnonzero(upright_mask(mask, camera)).tolist()
            for camera, mask in zip(manifest.cameras, masks, strict=True)
        },
        'paths': paths,
        'gripper': [round(opening, 2) for opening in sent.chunk.gripper.tolist()],
        'clamped': sent.clamped,
    }


def point_of(sent: SentChunk) -> dict[str, Any]:
    """Return a chunk's numbers, a point of the page's curves; durations are milliseconds."""
    times, job = sent.result.prediction.times, sent.job
    total = (sent.published - job.arrived) * 1e-6
    stages = {
        'preprocess': 1e3 * (sent.result.decode + times.preprocess),
        'encode': 1e3 * times.encode,
        'act': 1e3 * times.act,
        'postprocess': 1e3 * times.postprocess,
    }
    stages['node'] = max(0.0, total - sum(stages.values()))
    return {
        'at': sent.published * 1e-9,
        'kept': list(sent.result.prediction.kept),
        'stages': {name: round(each, 2) for name, each in stages.items()},
        'latency': round(sent.latency * 1e-6, 1),
    }
