"""The chunk executor: action chunks in, commands for the arm's controller and the gripper out.

The node adds the lifecycle, the services and the reports to an :class:`ExecutorRunner`. Any doubt
holds the arm, and ``~/status`` and ``/diagnostics`` name the reason. A stop lasts until
``~/reset``.
"""

from __future__ import annotations

import sys
import threading

from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from std_srvs.srv import Trigger

from lightvla_ros.errors import one_line
from lightvla_ros.nodes.clock_watch import ClockWatch
from lightvla_ros.nodes.executor_parameters import EXECUTOR_PARAMETERS, misfit
from lightvla_ros.nodes.executor_runner import ExecutorRunner
from lightvla_ros.nodes.lifecycle import GuardedLifecycleNode, TransitionError
from lightvla_ros.nodes.qos_overrides import unused_override
from lightvla_ros.nodes.spin import run_node
from lightvla_ros.nodes.status_report import StatusReport, diagnostic
from lightvla_ros.runtime.reasons import reason
from lightvla_ros.runtime.supervisor import State

WATCH_PERIOD = 0.02  # s


class ChunkExecutorNode(GuardedLifecycleNode):
    """Lifecycle node that executes chunks on one arm.

    :param stop: Set by a signal or the shutdown transition when the process must end.
    :ivar runner: None while the node is not configured.
    """

    def __init__(self, stop: threading.Event | None = None, **options) -> None:
        super().__init__('chunk_executor', stop or threading.Event(), **options)
        self.runner: ExecutorRunner | None = None
        self._values = EXECUTOR_PARAMETERS.declare(self, check=misfit)
        self._report = StatusReport(self, self._advice, self._on_publish_failure)
        self.create_service(Trigger, '~/reset', self._on_reset)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._clock_watch = ClockWatch(self.get_clock(), self._on_clock_jump)
        self.create_timer(WATCH_PERIOD, self._clock_watch.look, clock=steady)
        self.create_timer(1.0, self._heartbeat, clock=steady)
        self._report.publish()

    @property
    def _active(self) -> bool:
        return self.runner is not None and self.runner.active

    # Transitions

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Create topics and the safety filter; a failure is also published in the status."""
        result = super().on_configure(state)
        if result != TransitionCallbackReturn.SUCCESS:
            self._report.change(State.UNCONFIGURED, reason('configure_failed'))
        return result

    def _configure(self) -> None:
        self.runner = ExecutorRunner(self, self._values, self._report.change)
        fault = unused_override(self)
        if fault:
            raise TransitionError(fault)
        self._report.change(State.INACTIVE, '')

    def _activate(self) -> None:
        self.runner.start()

    def _deactivate(self) -> None:
        if self._active:
            self.runner.end(reason('shutdown' if self._stop.is_set() else 'deactivated'))
            self._report.change(State.INACTIVE, '')

    def _cleanup(self) -> None:
        self._deactivate()
        if self.runner is not None:
            self.runner.close()
            self.runner = None
        self._report.say_last_words(reason('shutdown') if self._stop.is_set() else '')

    # Callbacks

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if not self._active:
            response.message = 'the node is not active; configure and activate it'
        elif self.runner.reset():
            response.success = True
            response.message = 'holding still until the next chunk'
        else:
            response.message = 'the arm still comes to rest; call again'
        return response

    def _on_clock_jump(self, jump: int) -> None:
        if self._active:
            self.runner.start_again(jump)

    def _on_publish_failure(self, what: str, error: Exception) -> None:
        said = one_line(repr(error))
        self.get_logger().error(f'cannot publish {what}: {said}', throttle_duration_sec=5.0)

    def _advice(self) -> str:
        return self.runner.advice() if self._active else ''

    def _heartbeat(self) -> None:
        report, runner, name = self._report, self.runner, self.get_fully_qualified_name()
        values = {}
        if runner is not None:
            report.chunks = runner.counts['accepted']
            report.instruction = runner.instruction
            values = runner.statistics()
        report.publish_diagnostics([diagnostic(name, 'arm', report.level, report.line, values)])
        report.publish()


def main() -> int:
    """Run the chunk executor."""

    def build(stop: threading.Event) -> ChunkExecutorNode:
        node = ChunkExecutorNode(stop)
        node.autostart()
        return node

    return run_node(build)


if __name__ == '__main__':
    sys.exit(main())
