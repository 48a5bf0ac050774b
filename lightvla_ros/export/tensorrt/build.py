"""The two ONNX graphs of a policy -> TensorRT plans.

``tensorrt`` builds for this machine's GPU and keeps the plans beside the graphs. ``tensorrt-rtx``
proves on a CPU that the graphs build, with every bucket's profile, and keeps nothing.
Of ``tensorrt``, what needs a GPU is unverified: none was at hand.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from lightvla_ros.contract import BuiltEngine, Manifest, fingerprint, load_manifest
from lightvla_ros.engine.tensorrt.machine import (
    TARGET,
    engine_facts,
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

TARGETS = (TARGET, RTX_TARGET)


@dataclass(frozen=True)
class BuiltPlan:
    """One plan.

    :param graph: ``encode`` or ``act``.
    :param nbytes: Size [bytes].
    :param seconds: How long it took, parsing included; 0 where it was there already.
    :param profiles: Buckets, in the order of the plan's optimisation profiles.
    """

    graph: str
    nbytes: int
    seconds: float
    profiles: tuple[int, ...]


@dataclass(frozen=True)
class Built:
    """What :func:`build_engines` did.

    :param target: One of ``TARGETS``.
    :param version: Of TensorRT or TensorRT-RTX.
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
        raise BuildError(f'there is no target {target!r}; choose {" or ".join(TARGETS)}')
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
    """Build both graphs of an exported policy folder, and list what is kept in its manifest.

    :param target: One of ``TARGETS``.
    :param workspace: Memory that a layer may use while it runs [MiB]; None for all there is.
    :param progress: Takes one line at a time.
    :raises BuildError: When something is missing or cannot be built; the folder is as before.
    :raises WriteError: When the disk is full; likewise.
    :raises ContractError: When the folder was damaged meanwhile.
    """
    policy_dir = Path(policy_dir)
    check_target(target)
    if manifest.graphs is None:
        raise BuildError(f'{policy_dir}: holds no graphs; export them first')
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
        raise BuildError(f'{error}; to prove the graphs without a GPU: {RTX_TARGET}') from None


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

    def configure(config: Any) -> None:
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
        manifest = load_manifest(policy_dir)  # anew: what changed in these minutes stays
        if _is_listed(manifest, new):  # by another build of the same; its plans may be in use
            return Built(TARGET, version, _found(policy_dir, manifest, new))
        if manifest.graphs is None or _entry(engine_facts(manifest, machine)) != new:
            raise BuildError(f'{policy_dir}: was exported again during the build; build once more')
        list_plans(policy_dir, manifest, new, folder)
    return Built(TARGET, version, tuple(reports))


def _entry(facts: dict[str, Any]) -> BuiltEngine:
    identity = fingerprint(facts)
    encode, act = (f'{graph}-{identity[:12]}.plan' for graph in ('encode', 'act'))
    return BuiltEngine(TARGET, identity, facts, encode, act)


def _is_listed(manifest: Manifest, new: BuiltEngine) -> bool:
    return any(engine.fingerprint == new.fingerprint for engine in manifest.engines)


def _found(policy_dir: Path, manifest: Manifest, new: BuiltEngine) -> tuple[BuiltPlan, ...]:
    """Report plans that are listed already."""
    return tuple(
        BuiltPlan(graph, (policy_dir / getattr(new, graph)).stat().st_size, 0.0, buckets)
        for graph, _, buckets in _graphs(manifest)
    )


def _plans(
    trt: ModuleType,
    policy_dir: Path,
    manifest: Manifest,
    configure: Configure,
    say: Say,
) -> Iterator[tuple[BuiltPlan, Any]]:
    """Yield each plan with its report, ``encode`` first."""
    for graph, file, buckets in _graphs(manifest):
        say(f'{graph}: building' + (f' with {len(buckets)} profiles' if buckets else ''))
        started = time.monotonic()
        plan = build_plan(trt, policy_dir / file, buckets, configure, say)
        yield BuiltPlan(graph, plan.nbytes, time.monotonic() - started, buckets), plan


def _graphs(manifest: Manifest) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    """Name, file and profiles of both graphs."""
    graphs = manifest.graphs
    return ('encode', graphs.encode, ()), ('act', graphs.act, manifest.tokens.buckets)


def timing_cache_path(machine: dict[str, str]) -> Path | None:
    """Return where a machine's timing cache lies: in the user's cache folder, a file for each GPU.

    It holds what TensorRT measured of its kernels, so that the next build is shorter. None for a
    user without a home, which a container's may be.

    :param machine: See :func:`lightvla_ros.engine.tensorrt.machine.machine_facts`.
    """
    try:
        caches = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    except RuntimeError:
        return None
    name = f'tensorrt-{machine["tensorrt"]}-{machine["gpu"]}-{machine["compute_capability"]}'
    return caches / 'lightvla_ros' / (re.sub(r'[^\w.]+', '-', name) + '.timings')


class TimingCache:
    """A cache in a file. One that cannot be read, or that TensorRT does not take, is begun anew.

    :param path: None to keep nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._cache: Any = None

    def attach(self, config: Any) -> None:
        """Have a builder's configuration use the cache. It is read at the first call."""
        if self._cache is None:
            self._cache = config.create_timing_cache(self._read())
        # False: of this GPU only
        if self._cache is None or not config.set_timing_cache(self._cache, False):
            self._cache = config.create_timing_cache(b'')
            config.set_timing_cache(self._cache, False)

    def save(self) -> None:
        """Write it, all or nothing. Where it cannot be written, the next build takes longer."""
        if self._path is None:
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
