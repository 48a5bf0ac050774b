"""Progress lines of TensorRT's builder."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from lightvla_ros.engine.tensorrt.api import TensorRT

SECONDS_BETWEEN_LINES = 10.0


@dataclass
class Phase:
    """A phase of the builder: ``done`` of ``steps`` steps since ``started`` [s]."""

    started: float
    steps: int
    done: int = 0

    def seconds_left(self, now: float) -> float:
        """Return the time left at the present speed [s]; 0 before the first step."""
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
        """Return a line about the open phase with the most time left.

        The outermost phase counts only if it is the only one, because its steps differ in length.
        """
        inner = list(self._open.items())[1:] or list(self._open.items())
        name, phase = max(inner, key=lambda item: item[1].seconds_left(now))
        left = phase.seconds_left(now)
        rest = f'about {left:.0f} s left' if left else f'{now - phase.started:.0f} s so far'
        return f'{name} {phase.done}/{phase.steps}, {rest}'


def progress_monitor(trt: TensorRT, graph: str, say: Callable[[str], None]) -> Any:
    """Return an ``IProgressMonitor`` that reports the progress of a graph's build.

    Setting its ``interrupted`` stops the build at the next step.

    :param graph: Name at the start of every line.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[name-defined]  # known only at run time
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
    """Make Ctrl-C set the monitor's ``interrupted`` within this context.

    A KeyboardInterrupt would be raised inside a callback that TensorRT calls on this thread, such
    as its log, and TensorRT swallows exceptions.
    """

    def stop(*_: Any) -> None:
        monitor.interrupted = True

    before = signal.getsignal(signal.SIGINT)
    # otherwise Python does not handle the signal: it ends the process or, after nohup, is ignored
    is_ours = threading.current_thread() is threading.main_thread() and callable(before)
    if is_ours:
        signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        if is_ours:
            signal.signal(signal.SIGINT, before)
