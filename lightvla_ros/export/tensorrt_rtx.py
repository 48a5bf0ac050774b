"""TensorRT-RTX: the builder that runs without a GPU, for GPUs in PCs."""

from __future__ import annotations

from types import ModuleType

from lightvla_ros.errors import BuildError

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
