"""The two ONNX graphs of a policy -> TensorRT plans.

``tensorrt`` builds for this machine's GPU and keeps the plans beside the graphs. ``tensorrt-rtx``
tests on a CPU that the graphs build, with every bucket's profile, and keeps no plans.
The parts of ``tensorrt`` that need a GPU are unverified, because none was available.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightvla_ros.contract import BuiltEngine, Manifest, fingerprint, load_manifest
from lightvla_ros.engine.tensorrt.api import TensorRT
from lightvla_ros.engine.tensorrt.machine import (
    TARGET,
    engine_facts,
    exported_graphs,
    import_tensorrt,
    machine_facts,
)
from lightvla_ros.errors import BuildError, EngineError
from lightvla_ros.export.tensorrt.install import folder_beside, list_plans
from lightvla_ros.export.tensorrt.network import (
    RTX_TARGET,
    Configure,
    Say,
    build_plan,
    import_rtx,
    workspace_limit,
)
from lightvla_ros.files import WriteError, disk_errors, replace_whole

if TYPE_CHECKING:
    import tensorrt

TARGETS = (TARGET, RTX_TARGET)


@dataclass(frozen=True)
class BuiltPlan:
    """One plan.

    :param graph: ``encode`` or ``act``.
    :param nbytes: Size [bytes].
    :param seconds: Build time, parsing included; 0 if the plan existed already.
    :param profiles: Buckets, in the order of the plan's optimisation profiles.
    """

    graph: str
    nbytes: int
    seconds: float
    profiles: tuple[int, ...]


@dataclass(frozen=True)
class Built:
    """Result of :func:`build_engines`.

    :param target: One of ``TARGETS``.
    :param version: Version of TensorRT or TensorRT-RTX.
    """

    target: str
    version: str
    plans: tuple[BuiltPlan, ...]


def check_target(target: str) -> None:
    """Refuse a target for which this machine lacks something, before a long export.

    :param target: One of ``TARGETS``.
    :raises BuildError: Naming what is missing.
    """
    if target not in TARGETS:
        raise BuildError(f'unknown target {target!r}; choose {" or ".join(TARGETS)}')
    if target == RTX_TARGET:
        import_rtx()
    else:
        _machine()


def build_engines(
    policy_dir: Path,
    manifest: Manifest,
    target: str,
    *,
    workspace: int | None = None,
    progress: Say = print,
) -> Built:
    """Build both graphs of an exported policy folder, and list the kept plans in its manifest.

    :param target: One of ``TARGETS``.
    :param workspace: Memory that a layer may use while it runs [MiB]; None for no limit.
    :param progress: Takes one line at a time.
    :raises BuildError: When something is missing or cannot be built; the folder is unchanged.
    :raises WriteError: When the disk is full; the folder is unchanged.
    :raises ContractError: When the folder was damaged during the build.
    """
    policy_dir = Path(policy_dir)
    check_target(target)
    if manifest.graphs is None:
        raise BuildError(f'{policy_dir}: has no graphs; export it first')
    if target == RTX_TARGET:
        trt = import_rtx()
        configure = workspace_limit(trt, workspace)
        plans = _plans(trt, policy_dir, manifest, configure, progress)
        return Built(target, trt.__version__, tuple(report for report, _ in plans))
    return _build_here(policy_dir, manifest, _machine(), workspace, progress)


def _machine() -> dict[str, str]:
    try:
        return machine_facts()
    except EngineError as error:
        raise BuildError(
            f'{error}; to test without a GPU that the graphs build, use the target {RTX_TARGET}'
        ) from None


def _build_here(
    policy_dir: Path, manifest: Manifest, machine: dict[str, str], workspace: int | None, say: Say
) -> Built:
    trt = import_tensorrt()
    limit = workspace_limit(trt, workspace)
    timings = TimingCache(timing_cache_path(machine))
    new = _entry(engine_facts(manifest, machine))
    version = machine['tensorrt']
    if _is_listed(manifest, new):
        return Built(TARGET, version, _found(policy_dir, manifest, new))

    def configure(config: tensorrt.IBuilderConfig) -> None:
        timings.attach(config)
        limit(config)

    reports = []
    with folder_beside(policy_dir) as folder:
        for report, plan in _plans(trt, policy_dir, manifest, configure, say):
            timings.save()
            path = folder / getattr(new, report.graph)
            with disk_errors(path, plan.nbytes):
                path.write_bytes(plan)
            reports.append(report)
        manifest = load_manifest(policy_dir)  # again, to keep changes made during the build
        if _is_listed(manifest, new):  # by another, equal build; its plans may be in use
            return Built(TARGET, version, _found(policy_dir, manifest, new))
        if manifest.graphs is None or _entry(engine_facts(manifest, machine)) != new:
            raise BuildError(f'{policy_dir}: was exported again during the build; build again')
        list_plans(policy_dir, manifest, new, folder)
    return Built(TARGET, version, tuple(reports))


def _entry(facts: dict[str, Any]) -> BuiltEngine:
    identity = fingerprint(facts)
    encode, act = (f'{graph}-{identity[:12]}.plan' for graph in ('encode', 'act'))
    return BuiltEngine(TARGET, identity, facts, encode, act)


def _is_listed(manifest: Manifest, new: BuiltEngine) -> bool:
    return any(engine.fingerprint == new.fingerprint for engine in manifest.engines)


def _found(policy_dir: Path, manifest: Manifest, new: BuiltEngine) -> tuple[BuiltPlan, ...]:
    """Return reports on plans that are listed already."""
    return tuple(
        BuiltPlan(graph, (policy_dir / getattr(new, graph)).stat().st_size, 0.0, buckets)
        for graph, _, buckets in _graphs(manifest)
    )


def _plans(
    trt: TensorRT,
    policy_dir: Path,
    manifest: Manifest,
    configure: Configure,
    say: Say,
) -> Iterator[tuple[BuiltPlan, tensorrt.IHostMemory]]:
    """Yield each plan with its report, ``encode`` first."""
    for graph, file, buckets in _graphs(manifest):
        say(f'{graph}: building' + (f' with {len(buckets)} profiles' if buckets else ''))
        started = time.monotonic()
        plan = build_plan(trt, policy_dir / file, buckets, configure, say)
        yield BuiltPlan(graph, plan.nbytes, time.monotonic() - started, buckets), plan


def _graphs(manifest: Manifest) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    """Return name, file and profiles of both graphs."""
    graphs = exported_graphs(manifest)
    return ('encode', graphs.encode, ()), ('act', graphs.act, manifest.tokens.buckets)


def timing_cache_path(machine: dict[str, str]) -> Path | None:
    """Return the path of a machine's timing cache: a file per GPU in the user's cache folder.

    It holds TensorRT's measurements of its kernels, so that the next build is shorter. None for a
    user without a home folder, as in some containers.

    :param machine: See :func:`lightvla_ros.engine.tensorrt.machine.machine_facts`.
    """
    try:
        caches = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    except RuntimeError:
        return None
    name = f'tensorrt-{machine["tensorrt"]}-{machine["gpu"]}-{machine["compute_capability"]}'
    return caches / 'lightvla_ros' / (re.sub(r'[^\w.]+', '-', name) + '.timings')


class TimingCache:
    """A timing cache in a file. If it cannot be read or TensorRT refuses it, it starts empty.

    :param path: None for a cache that is not saved.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._cache: tensorrt.ITimingCache | None = None

    def attach(self, config: tensorrt.IBuilderConfig) -> None:
        """Make a builder's configuration use the cache. The file is read at the first call."""
        if self._cache is None:
            self._cache = config.create_timing_cache(self._read())
        # False: refuse a cache from another GPU
        if self._cache is None or not config.set_timing_cache(self._cache, False):
            self._cache = config.create_timing_cache(b'')
            config.set_timing_cache(self._cache, False)

    def save(self) -> None:
        """Write the file atomically. If that fails, the next build takes longer."""
        if self._path is None or self._cache is None:
            return
        with contextlib.suppress(OSError, WriteError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with replace_whole(self._path) as part:
                part.write_bytes(self._cache.serialize())

    def _read(self) -> bytes:
        if self._path is not None:
            with contextlib.suppress(OSError):
                return self._path.read_bytes()
        return b''
