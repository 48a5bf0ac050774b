"""Finds the TensorRT engine in a policy folder that was built for this machine.

A plan runs only with the TensorRT version and the kind of GPU that it was built for; otherwise
TensorRT refuses it, or runs it untested. So the manifest stores these facts, and this module
compares them. It also keeps TensorRT's log, so that an error can quote TensorRT's message.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from lightvla_ros.contract import BuiltEngine, Graphs, Manifest, fingerprint
from lightvla_ros.engine.tensorrt.api import TensorRT
from lightvla_ros.errors import EngineError, one_line

TARGET = 'tensorrt'


def import_tensorrt() -> TensorRT:
    """Import ``tensorrt``.

    :raises EngineError: When it cannot be imported.
    """
    try:
        import tensorrt
    except ImportError as error:
        raise EngineError(
            f'tensorrt cannot be imported ({error}); JetPack has it (apt install '
            'python3-libnvinfer), for other machines it is on PyPI (pip install tensorrt-cu13)'
        ) from None
    return tensorrt  # type: ignore[return-value]  # mypy misses the __version__ of modules


def machine_facts() -> dict[str, str]:
    """Return the versions of TensorRT and of the CUDA driver, and the GPU.

    :raises EngineError: When TensorRT, CUDA's bindings or a GPU is missing.
    """
    trt = import_tensorrt()
    from lightvla_ros.engine.tensorrt import (
        cuda,  # here: it needs the bindings, the rest of this file none
    )

    return {'tensorrt': trt.__version__, **cuda.gpu_facts()}


def engine_facts(manifest: Manifest, machine: dict[str, str]) -> dict[str, Any]:
    """Return everything that a plan depends on, for :func:`fingerprint`.

    :param machine: See :func:`machine_facts`.
    :raises EngineError: When the policy was not exported.
    """
    return {
        'engine': TARGET,
        'graphs': manifest.graph_hashes,
        **machine,
        'precision': exported_graphs(manifest).precision,
        'profiles': list(manifest.tokens.buckets),
    }


def exported_graphs(manifest: Manifest) -> Graphs:
    """Return the graphs of a policy.

    :raises EngineError: When there are none.
    """
    if manifest.graphs is None:
        raise EngineError('the policy has no graphs; export it first')
    return manifest.graphs


def differences(built: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """Return one phrase for each fact that differs."""
    return [
        f'{name}: {built.get(name, "none")} there, {here.get(name, "none")} here'
        if name != 'graphs'
        else 'graphs: exported again since'
        for name in sorted(built.keys() | here.keys())
        if built.get(name) != here.get(name)
    ]


def find_built(policy_dir: Path, manifest: Manifest, machine: dict[str, str]) -> BuiltEngine:
    """Return the folder's engine for this machine.

    :param machine: See :func:`machine_facts`.
    :raises EngineError: When there is none. The message names the command that builds it and, if
        the folder holds other engines, how the most similar one differs.
    """
    differing: list[list[str]] = []
    facts = engine_facts(manifest, machine)
    for engine in manifest.engines:
        if engine.fingerprint == fingerprint(facts):
            return engine
        differing.append(differences(engine.facts, facts))
    fault = 'holds no TensorRT engine'
    if differing:
        nearest = min(differing, key=len)
        fault = f'its TensorRT engine is for another machine or export ({"; ".join(nearest)})'
    raise EngineError(f'{policy_dir}: {fault}; build one here: {build_command(policy_dir)}')


def build_command(policy_dir: Path) -> str:
    """Return the command that builds a policy's engine on this machine."""
    return f'lightvla export --policy {policy_dir} --target {TARGET}'


@functools.cache
def error_log(trt: TensorRT) -> Any:
    """Return the process's only log of a TensorRT module: an ``ILogger`` that keeps its errors.

    There is only one, because TensorRT keeps using the first log that it receives. Its method
    ``take()`` returns and forgets the messages since the last call, with the cause first.

    :param trt: ``tensorrt`` or ``tensorrt_rtx``.
    """

    class ErrorLog(trt.ILogger):  # type: ignore[name-defined]  # known only at run time
        def __init__(self) -> None:
            super().__init__()
            self._errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.ERROR:
                self._errors.append(one_line(message))

        def take(self) -> list[str]:
            errors, self._errors = self._errors, []
            return errors

    return ErrorLog()
