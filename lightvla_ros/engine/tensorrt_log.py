"""TensorRT's log, kept so that an error can say what TensorRT said."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from lightvla_ros.errors import one_line


@functools.cache
def error_log(trt: ModuleType) -> Any:
    """Return the process's one log of a TensorRT module: an ``ILogger`` that keeps its errors.

    There is only one because TensorRT goes on using the first that it is given. Its method
    ``take()`` returns the messages since the last call, the cause first, and forgets them.

    :param trt: ``tensorrt`` or ``tensorrt_rtx``.
    """

    class ErrorLog(trt.ILogger):
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
