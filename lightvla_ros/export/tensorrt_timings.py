"""TensorRT's timing cache: what it measured of its kernels, so that the next build is shorter."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Any

from lightvla_ros.files import WriteError, replace_whole


def timing_cache_path(machine: dict[str, str]) -> Path | None:
    """Return where a machine's cache lies: in the user's cache folder, a file for each GPU.

    None for a user without a home, which a container's may be.

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
