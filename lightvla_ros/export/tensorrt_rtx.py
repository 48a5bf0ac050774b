"""TensorRT-RTX: the builder that runs without a GPU, for GPUs in PCs."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

from lightvla_ros.export.tensorrt_errors import BuildError
from lightvla_ros.export.tensorrt_network import Configure

RTX_TARGET = 'tensorrt-rtx'


def import_rtx() -> ModuleType:
    """Import ``tensorrt_rtx``.

    :raises BuildError: When it cannot be imported.
    """
    try:
        import tensorrt_rtx
    except ImportError as error:
        raise BuildError(
            f'tensorrt_rtx cannot be imported ({error}); pip install tensorrt-rtx-cu13'
        ) from None
    return tensorrt_rtx


def compile_for(trt: ModuleType, compute_capabilities: Sequence[str]) -> Configure:
    """Return what sets for which GPUs a plan is compiled.

    :param compute_capabilities: Such as ``8.9``; empty for all that TensorRT-RTX knows.
    :raises BuildError: When it does not know one.
    """
    known = {
        f'{name[2:-1]}.{name[-1]}': capability
        for name, capability in trt.ComputeCapability.__members__.items()
        if name.startswith('SM')
    }
    for name in compute_capabilities:
        if name not in known:
            raise BuildError(
                f'TensorRT-RTX {trt.__version__} does not compile for {name}; it does for '
                f'{", ".join(known)}'
            )

    def configure(config: Any) -> None:
        if compute_capabilities:
            config.num_compute_capabilities = len(compute_capabilities)
        for index, name in enumerate(compute_capabilities):
            config.set_compute_capability(known[name], index)

    return configure
