"""Judges a policy folder and the engine that will run it, without ROS and without a robot."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lightvla_ros.contract import Manifest, load_manifest
from lightvla_ros.doctor.findings import Finding, failed, passed, warned
from lightvla_ros.errors import ContractError, LightVLAError
from lightvla_ros.policy.golden import references
from lightvla_ros.policy.golden_file import read_golden
from lightvla_ros.policy.observation import observations
from lightvla_ros.policy.policy import Policy

RUNS = 5  # timed inferences
WITHOUT_PICTURES = (
    'export it again with --observations FILE.npz, with pictures from its training data '
    '(docs/how-to/deploy.md): then cameras and start pose can be compared with them'
)


def judge_folder(policy_dir: Path) -> tuple[Manifest | None, list[Finding]]:
    """Check manifest, files, recorded observations and verifications.

    :returns: The manifest; None when the folder cannot be trusted.
    """
    try:
        manifest = load_manifest(policy_dir)
    except (ContractError, OSError) as error:
        return None, [from_error('policy', error)]
    cameras = ', '.join(camera.name for camera in manifest.cameras)
    text = (
        f'{policy_dir}: {manifest.name}, {len(manifest.files)} files as listed, fingerprint '
        f'{manifest.fingerprint[:12]}; cameras {cameras}, steps of '
        f'{manifest.action.control_period:g} s ({manifest.action.execution})'
    )
    return manifest, [
        passed('policy', text),
        _recorded(policy_dir, manifest),
        *_verified(policy_dir, manifest),
    ]


def _recorded(policy_dir: Path, manifest: Manifest) -> Finding:
    try:
        found = references(policy_dir, manifest)
    except ContractError as error:
        return from_error('references', error)
    if found is None:
        text = 'the golden observations are random squares, not recorded pictures'
        return warned('references', text, WITHOUT_PICTURES)
    count = len(next(iter(found.pictures.values())))
    return passed('references', f'{count} recorded observations')


def _verified(policy_dir: Path, manifest: Manifest) -> Iterator[Finding]:
    for each in manifest.verified:
        text = (
            f'{each.backend} {each.precision} ({each.fingerprint[:12]}), {each.date}, against '
            f'{each.reference}'
        )
        text = '; '.join((text, *map(str, each.trials)))
        if each.passed:
            yield passed('verified', text)
        else:
            cure = f'lightvla verify {policy_dir}: it says what is wrong; use another engine'
            yield warned('verified', f'{text}: FAILED', cure)
    if not manifest.verified:
        cure = f'lightvla verify {policy_dir}, on the computer that will run it'
        yield failed('verified', 'no engine was verified, so a node refuses it', cure)


def judge_engine(policy_dir: Path, engine: str, threads: int, **options: Any) -> Finding:
    """Load an engine as a node does, which checks its verification and the golden answers.

    :param options: Of the engine, see :func:`lightvla_ros.engine.load_engine`.
    """
    try:
        with Policy.load(policy_dir, engine, threads, **options) as policy:
            manifest = policy.manifest
            observation = observations(manifest, read_golden(policy_dir, manifest))[0]
            times = [_seconds(policy, observation) for _ in range(RUNS)]
            name = f'{policy.engine.backend} {policy.engine.precision}'
    except (LightVLAError, ImportError) as error:
        return from_error('engine', error)
    taken = float(np.median(times))
    lasts = manifest.action.chunk_length * manifest.action.control_period
    text = (
        f'{name} with {threads} threads: verified, the golden answers repeat; a chunk of '
        f'{lasts:g} s takes {taken * 1e3:.0f} ms'
    )
    if taken > lasts:
        cure = 'use a faster engine, more threads or a GPU; else the arm waits between chunks'
        return warned('engine', text, cure)
    return passed('engine', text)


def _seconds(policy: Policy, observation: Any) -> float:
    started = time.perf_counter()
    policy.infer(observation)
    return time.perf_counter() - started


def from_error(subject: str, error: Exception) -> Finding:
    """Return an error as a finding. Our errors end with what to do, after a semicolon."""
    text, _, cure = str(error).rpartition('; ')
    return failed(subject, text, cure) if text else failed(subject, cure, 'mend this first')
