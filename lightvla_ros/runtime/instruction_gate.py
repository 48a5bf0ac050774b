"""When a new instruction becomes the current one, and when the current one has expired."""

from __future__ import annotations

import math

from lightvla_ros.runtime.reasons import reason


class InstructionGate:
    """Lets instructions through, but not too often; the newest wins.

    Times are seconds on a steady clock.
    """

    def __init__(self) -> None:
        self._pending = ''
        self._changed_at = -math.inf
        self._served_at = -math.inf  # given, repeated, or answered by a chunk

    def offer(self, text: str) -> None:
        """Take an instruction; it replaces one that still waits."""
        self._pending = text

    def withdraw(self) -> None:
        """Forget an instruction that still waits."""
        self._pending = ''

    def next(self, current: str, now: float, interval: float) -> str:
        """Return what is to become the current instruction now; empty when nothing is.

        :param current: A repetition of it changes nothing (`ros2 topic pub` repeats once a second);
            it shows that somebody still asks for it.
        :param interval: Between two changes [s].
        """
        text = self._pending
        if not text or now - self._changed_at < interval:
            return ''
        self._pending = ''
        if text == current:
            self.served(now)
            return ''
        self._changed_at = now
        return text

    def served(self, now: float) -> None:
        """Note that the current instruction was given, repeated, or answered by a chunk."""
        self._served_at = now

    def expiry(self, now: float, bound: float) -> str:
        """Return the reason why the current instruction must be given again; empty: it need not.

        Motion must not resume by itself after long: nobody expects it any more, and the scene and
        the people around may be others.

        :param bound: Longest time without a chunk [s]; 0: none.
        """
        idle = now - self._served_at
        if not bound or idle <= bound:
            return ''
        late = f'{idle:.1f} s without a chunk, instruction_timeout {bound:.1f} s'
        return reason('instruction_expired', '', late)
