"""The inference thread: takes a job when there is one, runs it, hands the outcome over.

Inference has a thread of its own and is never a callback: in a callback the node receives 6.5 of 60
frames per second and its watchdog sleeps for a whole inference (``docs/explanation/timing.md``).
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
        """Say that there may be a job. Costs microseconds."""
        with self._wake:
            self._woken = True
            self._wake.notify()

    def busy_for(self) -> float:
        """Seconds that the job under way has taken so far; 0 when there is none."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def stop(self, timeout: float) -> bool:
        """End the thread after the job under way; return whether it ended in time."""
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
                self._woken = True  # something may have come meanwhile
                if pause and self._wake.wait_for(lambda: self._stopping, pause):
                    return
