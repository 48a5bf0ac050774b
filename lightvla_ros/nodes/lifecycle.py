"""A lifecycle node whose transition callbacks may fail without silence.

rclpy swallows exceptions of lifecycle callbacks without a log line (rclpy#1673), so each one is
run here with its traceback logged. Subclasses write ``_configure``, ``_activate``, ``_deactivate``
and ``_cleanup``; they raise :class:`TransitionError` for an expected failure (one log line, the
node stays where it was and the transition can be tried again).
"""

from __future__ import annotations

import traceback
from collections.abc import Callable

from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn


class TransitionError(Exception):
    """A transition that cannot be made now; the message says why and what to do."""


class GuardedLifecycleNode(LifecycleNode):
    """Lifecycle node with guarded transitions."""

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load what is needed; a failure leaves the node unconfigured and may be retried."""
        return self._guarded('configure', self._configure, self._cleanup)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start working; a failure leaves the node inactive."""
        result = self._guarded('activate', self._activate, self._deactivate)
        if result == TransitionCallbackReturn.SUCCESS:
            return super().on_activate(state)
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop working. Publishers are switched off last, so that a hold can still be sent."""
        self._guarded('deactivate', self._deactivate)
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything that configure made."""
        return self._guarded('clean up', self._cleanup)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and free, from any state."""
        self._guarded('deactivate', self._deactivate)
        return self._guarded('shut down', self._cleanup)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Go back to unconfigured, so that the node can be configured again."""
        return self.on_shutdown(state)

    def _guarded(
        self,
        name: str,
        transition: Callable[[], None],
        undo: Callable[[], None] = lambda: None,
    ) -> TransitionCallbackReturn:
        try:
            transition()
            return TransitionCallbackReturn.SUCCESS
        except TransitionError as error:
            self.get_logger().error(f'cannot {name}: {error}')
        except Exception:
            self.get_logger().error(f'cannot {name}:\n{traceback.format_exc()}')
        try:
            undo()
        except Exception:
            self.get_logger().error(f'cannot undo {name}:\n{traceback.format_exc()}')
        return TransitionCallbackReturn.FAILURE

    def _configure(self) -> None:
        raise NotImplementedError

    def _activate(self) -> None:
        raise NotImplementedError

    def _deactivate(self) -> None:
        raise NotImplementedError

    def _cleanup(self) -> None:
        raise NotImplementedError
