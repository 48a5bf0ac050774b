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
        self._served_at = -math.inf  # when it was last given, repeated, or answered by a chunk

    def offer(self, text: str) -> None:
        """Store an instruction; it replaces one that is still waiting."""
        self._pending = text

    def withdraw(self, text: str = '') -> None:
        """Forget an instruction that is still waiting; with a text, only if it is that one."""
        if text in ('', self._pending):
            self._pending = ''

    def next(self, current: str, now: float, interval: float) -> str:
        """Return the instruction that becomes the current one now; empty when there is no change.

        :param current: The current one. Repeating it only restarts its timeout (`ros2 topic pub`
            repeats once a second).
        :param interval: Shortest time between two changes [s].
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
        """Return the reason why the current instruction has expired; empty if it has not.

        Motion must not resume after a long pause: nobody expects it any more, and the scene and
        the people around may have changed.

        :param bound: Longest time without a chunk [s]; 0: no limit.
        """
        idle = now - self._served_at
        if not bound or idle <= bound:
            return ''
        late = f'{idle:.1f} s without a chunk, instruction_timeout {bound:.1f} s'
        return reason('instruction_expired', '', late)
