"""Selects the engines and precisions with which a policy folder is verified and measured."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightvla_ros.contract import Manifest
from lightvla_ros.engine import sees_gpu

DEFAULT_BACKEND = 'onnxruntime-cpu'  # what a node runs by default


@dataclass(frozen=True)
class Variant:
    """An engine with a precision and options.

    :param name: The engine's name for ``load_engine``.
    :param precision: Precision in which it computes.
    :param options: Options for ``load_engine``.
    :param backend: The engine's own name for it, such as ``onnxruntime-cuda``.
    """

    name: str
    precision: str
    options: dict[str, Any]
    backend: str

    def __str__(self) -> str:
        return f'{self.backend} {self.precision}'


def variants(manifest: Manifest, named: str | None = None, compiled: bool = True) -> list[Variant]:
    """Return the variants that the libraries of this machine and this folder offer.

    :param named: The engine that the user named. Where PyTorch sees no GPU, ``torch-cuda`` is
        offered only to a user who names it, or for a folder without graphs: the user is then told
        what is missing.
    :param compiled: Option of ``torch-cuda``.
    """
    found = _of_graphs(manifest) if manifest.graphs is not None else []
    has_torch = manifest.model is not None and importlib.util.find_spec('torch')
    only = manifest.graphs is None or named == 'torch-cuda'
    if has_torch and (only or sees_gpu()):
        found += [
            Variant('torch-cuda', each, {'precision': each, 'compiled': compiled}, 'torch-cuda')
            for each in ('fp32', 'fp16', 'bf16', *(['fp8'] if manifest.fp8 is not None else []))
        ]
    return found


def _of_graphs(manifest: Manifest) -> list[Variant]:
    """Return the variants that run the folder's graphs."""
    found, own = [], manifest.graphs.precision
    if importlib.util.find_spec('onnxruntime'):  # a robot may have only TensorRT
        import onnxruntime

        for provider in onnxruntime.get_available_providers():
            if provider.startswith(('CPU', 'CUDA', 'Tensorrt')):
                short = provider.removesuffix('ExecutionProvider').lower()
                options = {'provider': provider}
                found.append(Variant('onnxruntime', own, options, f'onnxruntime-{short}'))
    if importlib.util.find_spec('openvino'):
        found += [
            Variant('openvino', number, {'precision': number}, 'openvino-cpu')
            for number in ('fp32', 'bf16')
        ]
    if manifest.engines:
        found.append(Variant('tensorrt', own, {}, 'tensorrt'))
    return found


@dataclass(frozen=True)
class Choice:
    """Which variants must pass, which are only tried, and which are skipped.

    :param deciding: Variants that must pass, because the user or the folder names them.
    :param trying: Variants that are tried too; one that fails is reported as unavailable.
    :param left: Variants of a precision that was not requested; they are not tried.
    """

    deciding: tuple[Variant, ...]
    trying: tuple[Variant, ...]
    left: tuple[Variant, ...]


def choose(
    manifest: Manifest,
    offered: Sequence[Variant],
    engine: str | None = None,
    precision: str | None = None,
    provider: str | None = None,
) -> Choice:
    """Sort variants into those that must pass, those that are tried, and those that are skipped.

    If the user names an engine, a provider or a precision, the matching variants must pass, in the
    folder's precision if none is named. Otherwise these must pass: engines that were built into the
    folder, variants that passed before, and the engine that a node runs by default. If there are
    none of these, every variant in the folder's precision must pass. A folder without graphs has no
    precision: all are tried then, and one must pass.

    :param offered: Variants of the machine and the folder, see :func:`variants`.
    """
    passed = {(each.backend, each.precision) for each in manifest.verified if each.passed}
    fitting = [
        each
        for each in offered
        if engine in (None, each.name) and provider in (None, each.options.get('provider'))
    ]
    own = None if manifest.graphs is None else manifest.graphs.precision
    if precision is None and own is None:
        return Choice((), tuple(fitting), ())
    asked = [
        each
        for each in fitting
        if each.precision == (precision or own)
        or (precision is None and (each.backend, each.precision) in passed)
    ]
    left = tuple(each for each in fitting if each not in asked)
    if (engine, precision, provider) != (None, None, None):
        return Choice(tuple(asked), (), left)
    named = {(DEFAULT_BACKEND, own), ('tensorrt', own)} | passed
    deciding = [each for each in asked if (each.backend, each.precision) in named] or asked
    trying = tuple(each for each in asked if each not in deciding)
    return Choice(tuple(deciding), trying, left)
