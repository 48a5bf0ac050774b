"""A lifecycle node that logs every failed transition.

rclpy swallows exceptions of lifecycle callbacks without a log line (rclpy#1673), so this class
catches them and logs the traceback. Subclasses write ``_configure``, ``_activate``, ``_deactivate``
and ``_cleanup``; they raise :class:`TransitionError` for an expected failure (one log line, the
node keeps its state and the transition can be tried again). An invalid transition is refused;
without this, rclpy of Jazzy would let the client wait without end (rclpy#1209).
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable

from lifecycle_msgs.srv import ChangeState
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from lightvla_ros.errors import LightVLAError, one_line


class TransitionError(LightVLAError):
    """A transition that cannot be made now; the message says why and what to do."""


class GuardedLifecycleNode(LifecycleNode):
    """Lifecycle node with guarded transitions.

    :param stop: Set by the shutdown transition: a finalised node can do nothing more, so its
        process should end.
    """

    def __init__(self, name: str, stop: threading.Event, **options) -> None:
        super().__init__(name, **options)
        self._stop = stop
        # Private, but the only place where a request that raises can still be answered.
        self._change_state = self._service_change_state.callback
        self._service_change_state.callback = self._on_change_state

    def autostart(self) -> None:
        """Configure and activate if the parameter ``autostart`` is set.

        The node does this itself, because a launch file's lifecycle request is lost when the node
        is respawned after a crash (``docs/explanation/timing.md``).
        """
        if not self.get_parameter('autostart').value:
            return
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def _on_change_state(
        self, request: ChangeState.Request, response: ChangeState.Response
    ) -> ChangeState.Response:
        try:
            return self._change_state(request, response)
        except Exception as error:
            wanted = one_line(request.transition.label) or request.transition.id
            self.get_logger().error(f'transition {wanted} refused: {one_line(error)}')
            response.success = False
            return response

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
        """Stop working. Publishers are deactivated last, so that a hold can still be sent."""
        self._guarded('deactivate', self._deactivate)
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything that configure created."""
        return self._guarded('clean up', self._cleanup)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop, free and end, from any state."""
        self._stop.set()  # first, so that the last hold and status give this as the reason
        return self.shut_down()

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Go back to unconfigured, so that the node can be configured again."""
        return self.shut_down()

    def shut_down(self) -> TransitionCallbackReturn:
        """Hold and free everything, while publishing is still possible."""
        self._guarded('deactivate', self._deactivate)
        return self._guarded('shut down', self._cleanup)

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
