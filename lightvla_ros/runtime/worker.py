"""The inference thread: takes a job when there is one, runs it and delivers the result.

Inference has its own thread. If it ran in a callback, the node would receive only 6.5 of 60 frames
per second and its watchdog would be blocked during each inference
(``docs/explanation/timing.md``).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

JobT = TypeVar('JobT')
ResultT = TypeVar('ResultT')


class Worker(Generic[JobT, ResultT]):
    """One daemon thread.

    :param take: Returns the next job, or None when there is none now. Called after each wake.
    :param run: Turns a job into a result; may raise anything.
    :param deliver: Gets the job and the result or the exception. Returns how many seconds to
        wait before the next job, to back off from an engine that fails.
    """

    def __init__(
        self,
        take: Callable[[], JobT | None],
        run: Callable[[JobT], ResultT],
        deliver: Callable[[JobT, ResultT | Exception], float],
    ) -> None:
        self._take = take
        self._run = run
        self._deliver = deliver
        self._wake = threading.Condition()
        self._woken = False
        self._stopping = False
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._loop, name='inference', daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Wake the thread because there may be a job. Costs microseconds."""
        with self._wake:
            self._woken = True
            self._wake.notify()

    def busy_for(self) -> float:
        """Return how long the running job has taken so far [s]; 0 when none is running."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def stop(self, timeout: float) -> bool:
        """End the thread after the running job; return whether it ended in time."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join(timeout)
        return not self.alive

    @property
    def alive(self) -> bool:
        """Whether the thread still runs."""
        return self._thread.is_alive()

    def _loop(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._woken or self._stopping)
                if self._stopping:
                    return
                self._woken = False
            job = self._take()
            if job is None:
                continue
            self._busy_since = time.monotonic()
            try:
                outcome: ResultT | Exception = self._run(job)
            except Exception as error:
                outcome = error
            pause = self._deliver(job, outcome)
            self._busy_since = None
            with self._wake:
                self._woken = True  # a new job may have arrived meanwhile
                if pause and self._wake.wait_for(lambda: self._stopping, pause):
                    return
