"""How far TensorRT's builder is, in a line now and then."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

SECONDS_BETWEEN_LINES = 10.0


@dataclass
class Phase:
    """A phase of the builder: ``done`` of ``steps`` steps since ``started`` [s]."""

    started: float
    steps: int
    done: int = 0

    def seconds_left(self, now: float) -> float:
        """Return the time the rest takes if it goes on as before [s]; 0 before the first step."""
        if not self.done:
            return 0.0
        return (now - self.started) / self.done * (self.steps - self.done)


class Phases:
    """The builder's open phases, which nest."""

    def __init__(self) -> None:
        self._open: dict[str, Phase] = {}

    def start(self, name: str, steps: int, now: float) -> None:
        """Open a phase."""
        self._open[name] = Phase(now, steps)

    def step(self, name: str, step: int) -> None:
        """Note that a step, counted from 0, is done."""
        if name in self._open:
            self._open[name].done = step + 1

    def finish(self, name: str) -> None:
        """Close a phase, also before its last step."""
        self._open.pop(name, None)

    def line(self, now: float) -> str:
        """Say where the builder is, by the open phase that has the most before it.

        The outermost phase does not count where there are others: its steps are too unlike.
        """
        inner = list(self._open.items())[1:] or list(self._open.items())
        name, phase = max(inner, key=lambda item: item[1].seconds_left(now))
        left = phase.seconds_left(now)
        rest = f'about {left:.0f} s left of it' if left else f'{now - phase.started:.0f} s so far'
        return f'{name} {phase.done}/{phase.steps}, {rest}'


def progress_monitor(trt: ModuleType, graph: str, say: Callable[[str], None]) -> Any:
    """Return an ``IProgressMonitor`` that says how far the build of a graph is.

    Setting its ``interrupted`` stops the build at the next step.

    :param graph: Name that every line begins with.
    """

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            super().__init__()
            self.interrupted = False
            self._phases = Phases()
            self._said = time.monotonic()
            self._lock = threading.Lock()  # TensorRT calls from several threads

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            self._note(lambda now: self._phases.start(name, steps, now))

        def step_complete(self, name: str, step: int) -> bool:
            self._note(lambda now: self._step(name, step, now))
            return not self.interrupted

        def phase_finish(self, name: str) -> None:
            self._note(lambda now: self._phases.finish(name))

        def _step(self, name: str, step: int, now: float) -> None:
            self._phases.step(name, step)
            if now - self._said >= SECONDS_BETWEEN_LINES:
                self._said = now
                say(f'{graph}: {self._phases.line(now)}')

        def _note(self, change: Callable[[float], None]) -> None:
            with self._lock:
                change(time.monotonic())

    return Monitor()


@contextlib.contextmanager
def ctrl_c_stops(monitor: Any) -> Iterator[None]:
    """Have Ctrl-C set the monitor's ``interrupted`` meanwhile.

    A KeyboardInterrupt would be raised in whatever TensorRT calls on this thread, its log among
    them, and TensorRT loses exceptions.
    """

    def stop(*_: Any) -> None:
        monitor.interrupted = True

    before = signal.getsignal(signal.SIGINT)
    # else it is not Python's: it ends the process or, after nohup, is ignored
    is_ours = threading.current_thread() is threading.main_thread() and callable(before)
    if is_ours:
        signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        if is_ours:
            signal.signal(signal.SIGINT, before)
