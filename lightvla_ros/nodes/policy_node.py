"""The policy node: cameras and an instruction in, action chunks out.

The node adds the lifecycle, the services and the watchdog to a :class:`PolicyRunner`. Only the
watchdog decides whether the robot may move; it runs on a steady clock, 50 times a second.

The safety rule: without an instruction there is no motion; on any doubt the node publishes a chunk
without steps, and the reason. Input faults clear themselves. Engine faults last until ``~/reset``
or re-activation.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from types import SimpleNamespace

from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from std_srvs.srv import SetBool, Trigger

from lightvla_ros.errors import one_line
from lightvla_ros.nodes.clock_watch import ClockWatch
from lightvla_ros.nodes.lifecycle import GuardedLifecycleNode, TransitionError
from lightvla_ros.nodes.policy_loading import load_policy
from lightvla_ros.nodes.policy_parameters import POLICY_PARAMETERS, freshness_from, misfit
from lightvla_ros.nodes.policy_runner import PolicyRunner
from lightvla_ros.nodes.policy_statistics import ChunkStatistics
from lightvla_ros.nodes.policy_status import policy_diagnostics
from lightvla_ros.nodes.qos_overrides import unused_override
from lightvla_ros.nodes.recorder import NoRecorder, Recorder
from lightvla_ros.nodes.run_action import RunAction
from lightvla_ros.nodes.spin import run_node
from lightvla_ros.nodes.status_report import StatusReport
from lightvla_ros.nodes.view.live_view import LiveView
from lightvla_ros.policy.policy import Policy
from lightvla_ros.runtime.reasons import reason
from lightvla_ros.runtime.supervisor import State

WATCHDOG_PERIOD = 0.02


class PolicyNode(GuardedLifecycleNode):
    """Lifecycle node around one policy.

    :param stop: Set by a signal or the shutdown transition when the process must end.
    :param load: Builds the policy from folder, engine and options; tests replace it.
    :ivar runner: Runs the policy; None while no policy is configured.
    :ivar view: The page; None unless the parameter ``view`` is set.
    :ivar recorder: Records the node; it does nothing unless the parameter ``record`` is set.
    """

    def __init__(
        self,
        stop: threading.Event | None = None,
        load: Callable[..., Policy] = Policy.load,
        **options,
    ) -> None:
        super().__init__('lightvla', stop or threading.Event(), **options)
        self.statistics = ChunkStatistics()
        self.runner: PolicyRunner | None = None
        self._load = load
        self._values = POLICY_PARAMETERS.declare(self, self._on_parameters, self._misfit)
        self.view: LiveView | None = None
        with ExitStack() as undo:  # a disk or a port may be refused; see ParameterTable.declare
            undo.callback(super().destroy_node)
            self.recorder = Recorder(self, self._values) if self._values.record else NoRecorder()
            undo.callback(self.recorder.close)
            self._offer(undo)
            undo.pop_all()
        self._report.publish()

    def _offer(self, undo: ExitStack) -> None:
        """Create what others use: status, services, action, page."""
        self.recorder.put_parameters()
        self._report = StatusReport(self, self._advice, self._on_publish_failure, self.recorder)
        self._run_action = RunAction(self, self._values, self._report, lambda: self.runner)
        undo.callback(self._run_action.destroy)
        self.create_service(Trigger, '~/reset', self._on_reset)
        self.create_service(SetBool, '~/pause', self._on_pause)
        # Steady clocks: timers on ROS time stop when /clock stops, and that is when a watchdog is
        # needed. A node without any timer can also sleep through SIGTERM.
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(WATCHDOG_PERIOD, self._watch, clock=self._steady)
        self.create_timer(1.0, self._heartbeat, clock=self._steady)
        self._clock_watch = ClockWatch(self.get_clock(), self._on_clock_jump)
        if self._values.view:
            self.view = LiveView(self, self._values, self._report, lambda: self.runner)
            self.get_logger().info(f'the page is at {self.view.url}')

    def destroy_node(self) -> None:
        """Stop serving the page and the action, and finish the recording, as well."""
        self._run_action.destroy()
        self.recorder.close()
        if self.view is not None:
            self.view.close()
        super().destroy_node()

    @property
    def frames_received(self) -> int:
        """Number of images received while active, good or bad."""
        return self.runner.inputs.frames if self.runner else 0

    @property
    def _active(self) -> bool:
        return self.runner is not None and self.runner.supervisor.active

    @property
    def _fault(self) -> str:
        return self.runner.supervisor.fault if self.runner else ''

    # Transitions

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the policy; a failure is also published in the status."""
        result = super().on_configure(state)
        if result != TransitionCallbackReturn.SUCCESS:
            self._report.change(State.UNCONFIGURED, reason('configure_failed'))
        return result

    def _configure(self) -> None:
        self.get_logger().info(f'loading {self._values.policy}')
        policy = load_policy(self._load, self._values, self._stop)
        try:
            fault = misfit(self._values, policy.manifest)
            if fault:
                raise TransitionError(fault)
            self.runner = PolicyRunner(
                self,
                policy,
                self._values,
                self._report,
                self.statistics,
                self._on_publish_failure,
                self.recorder,
                onlookers=[self.view.on_sent] if self.view else [],
            )
        except BaseException:
            policy.close()  # GPU memory is not freed automatically
            raise
        fault = unused_override(self)
        if fault:
            raise TransitionError(f'{fault} (launch argument `params_file`)')
        manifest, engine = policy.manifest, policy.engine
        self.get_logger().info(
            f'loaded {manifest.name} ({manifest.fingerprint[:12]}) on '
            f'{engine.backend}, {engine.precision}'
        )
        self._report.change(State.INACTIVE, '')

    def _activate(self) -> None:
        if self.runner.hangs:
            raise TransitionError('an inference hangs and has not returned; restart the node')
        self.runner.start()

    def _deactivate(self) -> None:
        if not self._active:
            return
        self.runner.end(reason('shutdown' if self._stop.is_set() else 'deactivated'))
        # before stop(), which waits for the running inference: the status must not be old meanwhile
        self._report.change(State.FAULT if self._fault else State.INACTIVE, self._fault)
        self.runner.stop()

    def _cleanup(self) -> None:
        self._deactivate()
        if self.runner is not None:
            self.runner.close()
            self.runner = None
        self._report.say_last_words(reason('shutdown') if self._stop.is_set() else '')

    # Callbacks

    def _on_clock_jump(self, jump: int) -> None:
        if self._active:
            self.runner.start_again(jump)

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if not self._active:
            response.message = 'the node is not active: nothing moves, and the pause is not stored'
            return response
        self.runner.pause(request.data)
        self._watch()
        response.success = True
        response.message = 'paused' if request.data else 'running as soon as all inputs are good'
        return response

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._fault and not self._active:
            response.success = self.trigger_activate() == TransitionCallbackReturn.SUCCESS
            response.message = 'activated again' if response.success else 'see the log'
        elif self._active:
            self.runner.reset()
            response.success = True
            response.message = 'waiting for an instruction'
        elif self._stop.is_set():
            response.message = 'the node is shutting down; start it again'
        else:
            response.message = 'the node is not active; configure and activate it'
        return response

    def _misfit(self, values: SimpleNamespace) -> str | None:
        return misfit(values, self.runner.policy.manifest if self.runner else None)

    def _on_parameters(self, values: SimpleNamespace) -> None:
        if self.runner is not None:
            self.runner.inbox.freshness = freshness_from(values)
        self.recorder.put_parameters()

    def _on_publish_failure(self, what: str, error: Exception) -> None:
        """Enter a fault; also called from the inference thread."""
        said = one_line(repr(error))
        self.get_logger().error(f'cannot publish {what}: {said}', throttle_duration_sec=5.0)
        if self.runner is not None:
            self.runner.supervisor.publish_failed(what)

    # Supervision

    def _watch(self) -> None:
        """Decide whether the robot may move; hold at once when it may not."""
        self._clock_watch.look()
        self._run_action.watch()
        if not self._active:
            return
        state, why = self.runner.watch()
        if state == State.FAULT:
            self.trigger_deactivate()
        else:
            self._report.change(state, why)

    def _advice(self) -> str:
        return self.runner.advice() if self.runner else ''

    def _heartbeat(self) -> None:
        runner = self.runner
        if runner is not None:
            self._report.chunks = runner.output.chunks
        statuses = policy_diagnostics(
            self.get_fully_qualified_name(),
            self._report,
            manifest=runner.policy.manifest if runner else None,
            engine=runner.policy.engine if runner else None,
            statistics=self.statistics,
            inputs=runner.inbox.counts if runner else {},
            input_fault=runner.input_fault() if runner else '',
            advice=self._advice(),
            failures=runner.supervisor.failures if runner else 0,
            recorder=self.recorder,
        )
        self._report.publish_diagnostics(statuses)
        self._report.publish()


def main() -> int:
    """Run the policy node."""

    def build(stop: threading.Event) -> PolicyNode:
        node = PolicyNode(stop)
        node.autostart()
        return node

    return run_node(build)


if __name__ == '__main__':
    sys.exit(main())
