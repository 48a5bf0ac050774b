"""The two ONNX graphs of a policy -> TensorRT plans.

``tensorrt`` builds for this machine's GPU and keeps the plans beside the graphs. ``tensorrt-rtx``
proves on a CPU that the graphs build, with every bucket's profile, and keeps nothing.
Of ``tensorrt``, what needs a GPU is unverified: none was at hand.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from lightvla_ros.engine.base import EngineError
from lightvla_ros.engine.tensorrt_facts import (
    TARGET,
    engine_facts,
    import_tensorrt,
    machine_facts,
)
from lightvla_ros.export.tensorrt_errors import BuildError
from lightvla_ros.export.tensorrt_network import Configure, Say, build_plan
from lightvla_ros.export.tensorrt_rtx import RTX_TARGET, compile_for, import_rtx
from lightvla_ros.export.tensorrt_timings import TimingCache, timing_cache_path
from lightvla_ros.manifest import Manifest, fingerprint

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
    :param files: Names of the new files; none where they were there already or nothing is kept.
    :param engine: The entry for ``engines`` in the manifest's document; None where nothing is kept.
    """

    target: str
    version: str
    plans: tuple[BuiltPlan, ...]
    files: tuple[str, ...]
    engine: dict[str, Any] | None


def build_engines(
    policy_dir: Path,
    manifest: Manifest,
    target: str,
    *,
    workspace: int | None = None,
    compute_capabilities: tuple[str, ...] = (),
    progress: Say = print,
) -> Built:
    """Build both graphs of an exported policy folder. To list the result is the caller's.

    :param target: One of ``TARGETS``.
    :param workspace: Memory that a layer may use while it runs [MiB]; None for all there is.
    :param compute_capabilities: Of the GPUs that ``tensorrt-rtx`` compiles for, such as ``8.9``;
        empty for all it knows.
    :param progress: Takes one line at a time.
    :raises BuildError: When something is missing or cannot be built; no file is left behind.
    """
    policy_dir = Path(policy_dir)
    if target not in TARGETS:
        raise BuildError(f'there is no target {target!r}; choose {" or ".join(TARGETS)}')
    if workspace is not None and workspace < 1:
        raise BuildError(f'--workspace is {workspace} MiB; name at least 1, or leave it out')
    if manifest.graphs is None:
        raise BuildError(f'{policy_dir}: holds no graphs; export them first')
    if target == RTX_TARGET:
        trt = import_rtx()
        configure = compile_for(trt, compute_capabilities)
        plans = _plans(trt, policy_dir, manifest, workspace, configure, progress)
        return Built(target, trt.__version__, tuple(report for report, _ in plans), (), None)
    if compute_capabilities:
        raise BuildError(
            f'compute capabilities are for {RTX_TARGET}; {TARGET} builds for the GPU it runs on'
        )
    try:
        machine = machine_facts()
    except EngineError as error:
        raise BuildError(f'{error}; to prove the graphs without a GPU: {RTX_TARGET}') from None
    return _build_here(policy_dir, manifest, machine, workspace, progress)


def _build_here(
    policy_dir: Path, manifest: Manifest, machine: dict[str, str], workspace: int | None, say: Say
) -> Built:
    facts = engine_facts(manifest, machine)
    identity = fingerprint(facts)
    files = {graph: f'{graph}-{identity[:12]}.plan' for graph in ('encode', 'act')}
    entry = {'target': TARGET, 'fingerprint': identity, 'facts': facts}
    entry.update(files)
    version = machine['tensorrt']
    if any(engine.fingerprint == identity for engine in manifest.engines):
        found = tuple(
            BuiltPlan(graph, (policy_dir / files[graph]).stat().st_size, 0.0, buckets)
            for graph, _, buckets in _graphs(manifest)
        )
        return Built(TARGET, version, found, (), entry)

    timings = TimingCache(timing_cache_path(machine))
    reports = []
    try:
        for report, plan in _plans(
            import_tensorrt(), policy_dir, manifest, workspace, timings.attach, say
        ):
            timings.save()
            _write(policy_dir / files[report.graph], plan)
            reports.append(report)
    except BaseException:  # also Ctrl-C: a folder with a file that is not listed is refused
        for name in files.values():
            (policy_dir / name).unlink(missing_ok=True)
        raise
    return Built(TARGET, version, tuple(reports), tuple(files.values()), entry)


def _plans(
    trt: ModuleType,
    policy_dir: Path,
    manifest: Manifest,
    workspace: int | None,
    configure: Configure,
    say: Say,
) -> Iterator[tuple[BuiltPlan, Any]]:
    """Yield each plan with its report, ``encode`` first."""

    def configure_all(config: Any) -> None:
        configure(config)
        if workspace is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace << 20)

    for graph, file, buckets in _graphs(manifest):
        say(f'{graph}: building' + (f' with {len(buckets)} profiles' if buckets else ''))
        started = time.monotonic()
        plan = build_plan(trt, policy_dir / file, buckets, configure_all, say)
        yield BuiltPlan(graph, plan.nbytes, time.monotonic() - started, buckets), plan


def _graphs(manifest: Manifest) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    """Name, file and profiles of both graphs."""
    graphs = manifest.graphs
    return ('encode', graphs.encode, ()), ('act', graphs.act, manifest.tokens.buckets)


def _write(path: Path, plan: Any) -> None:
    try:
        path.write_bytes(plan)
    except OSError as error:
        raise BuildError(f'{path}: {error.strerror}; it takes {plan.nbytes / 1e6:.0f} MB') from None
