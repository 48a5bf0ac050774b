"""TensorRT's timing cache: what it measured of its kernels, so that the next build is shorter."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Any


def timing_cache_path(machine: dict[str, str]) -> Path:
    """Return where a machine's cache lies: in the user's cache folder, a file for each GPU.

    :param machine: See :func:`lightvla_ros.engine.tensorrt_facts.machine_facts`.
    """
    folder = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'lightvla_ros'
    name = f'tensorrt-{machine["tensorrt"]}-{machine["gpu"]}-{machine["compute_capability"]}'
    return folder / (re.sub(r'[^\w.]+', '-', name) + '.timings')


class TimingCache:
    """A cache in a file. One that TensorRT does not take is begun anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._cache: Any = None

    def attach(self, config: Any) -> None:
        """Have a builder's configuration use the cache. It is read at the first call."""
        if self._cache is None:
            before = self._path.read_bytes() if self._path.exists() else b''
            self._cache = config.create_timing_cache(before)
        if not config.set_timing_cache(self._cache, False):  # False: of this GPU only
            self._cache = config.create_timing_cache(b'')
            config.set_timing_cache(self._cache, False)

    def save(self) -> None:
        """Write it, all or nothing. Where it cannot be written, the next build takes longer."""
        part = self._path.with_suffix('.part')
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(self._cache.serialize())
            part.replace(self._path)
