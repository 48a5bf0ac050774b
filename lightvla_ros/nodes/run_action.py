"""The action ``~/run_instruction``: an instruction with a time limit and somebody who judges it.

The action stands beside the topic ``instruction`` and gives the instruction by the same way. One
run goes on at a time. A second goal is accepted and aborted at once with BUSY, because ROS rejects
goals without saying why; it does not take the robot from the first.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.node import Node
from rclpy.subscription import Subscription
from std_msgs.msg import String
from std_srvs.srv import SetBool

from lightvla_ros.action import RunInstruction
from lightvla_ros.errors import InstructionError, one_line
from lightvla_ros.nodes.conversions import duration_message, nanoseconds, stamp_ns
from lightvla_ros.nodes.policy_runner import PolicyRunner
from lightvla_ros.nodes.qos import ORDER_QOS
from lightvla_ros.nodes.status_report import StatusReport
from lightvla_ros.policy.prompt import check_instruction, stop_words_in
from lightvla_ros.runtime.reasons import cut

FEEDBACK_PERIOD = 0.2  # s
LONGEST = 86400.0  # s
TAKEN_WITHIN = 1.0  # s beyond `min_instruction_interval`, until an instruction is in force

Goal, Result = RunInstruction.Goal, RunInstruction.Result
JUDGES = (Goal.SUCCESS_BY_TIMEOUT, Goal.SUCCESS_BY_USER, Goal.SUCCESS_BY_BRIDGE)


@dataclass
class Run:
    """A goal that is being pursued.

    :param text: The instruction, normalised.
    :param limit: Seconds.
    :param begun: Steady time [s].
    :param chunks: The session's chunks when it began.
    :param taken: Whether the instruction has been in force.
    :param verdict: Success, and one line; None until somebody has judged.
    """

    handle: ServerGoalHandle
    text: str
    limit: float
    begun: float
    chunks: int
    taken: bool = False
    verdict: tuple[bool, str] | None = None
    judge: Subscription | None = None
    told: float = 0.0


class RunAction:
    """The action server of one policy node; it decides in :meth:`watch`, and callbacks only store.

    :param values: The node's parameters.
    :param report: The node's status.
    :param runner: Returns the node's runner; None while no policy is configured.
    """

    def __init__(
        self,
        node: Node,
        values: SimpleNamespace,
        report: StatusReport,
        runner: Callable[[], PolicyRunner | None],
    ) -> None:
        self._node = node
        self._values = values
        self._runner = runner
        self._report = report
        self._run: Run | None = None
        self._server = ActionServer(
            node,
            RunInstruction,
            '~/run_instruction',
            # A goal is executed at its end, to give the result: a coroutine that waits would keep
            # Jazzy's executor busy without pause.
            execute_callback=lambda handle: None,
            handle_accepted_callback=self._on_goal,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
        )
        node.create_service(SetBool, '~/judge_run', self._on_judge)

    def destroy(self) -> None:
        """Remove the server."""
        self._server.destroy()

    def watch(self) -> None:
        """End the run when it is over, and tell how it goes. Call it often."""
        run = self._run
        if run is None:
            return
        end = self._end_of(run)
        if end is not None:
            self._finish(run, *end)
            return
        now = time.monotonic()
        if now - run.told >= FEEDBACK_PERIOD:
            run.told = now
            feedback = RunInstruction.Feedback(
                state=int(self._report.state),
                reason=self._report.reason,
                chunks=self._chunks(run),
                elapsed=_since(run.begun),
            )
            run.handle.publish_feedback(feedback)

    def _end_of(self, run: Run) -> tuple[int, str] | None:
        """Return the kind of failure and one line when a run is over; None while it goes on."""
        runner, elapsed = self._runner(), time.monotonic() - run.begun
        if run.handle.is_cancel_requested:
            return Result.CANCELLED, 'cancelled'
        if runner is None or not runner.supervisor.active:
            if runner is not None and runner.supervisor.fault:
                return Result.FAULT, runner.supervisor.fault
            return Result.NOT_ACTIVE, 'the node was deactivated'
        now = runner.inbox.instruction
        run.taken |= now == run.text
        waits = not run.taken and elapsed < self._values.min_instruction_interval + TAKEN_WITHIN
        if now != run.text and not waits:
            lost = f'another instruction is in force: {now}' if now else 'it was taken back'
            return Result.INSTRUCTION_LOST, lost
        if run.verdict is not None:
            success, text = run.verdict
            return Result.NONE if success else Result.JUDGED_FAILED, text
        if elapsed < run.limit:
            return None
        if run.handle.request.success_by == Goal.SUCCESS_BY_TIMEOUT:
            return Result.NONE, 'the time is over; nobody has judged the result'
        return Result.TIMED_OUT, f'no success within {run.limit:g} s'

    def _on_goal(self, handle: ServerGoalHandle) -> None:
        goal, runner = handle.request, self._runner()
        limit = stamp_ns(goal.time_limit) * 1e-9
        if self._run is not None:
            refusal = Result.BUSY, f'another run goes on: {self._run.text}'
        elif runner is None or not runner.supervisor.active:
            fault = runner.supervisor.fault if runner else ''
            refusal = Result.FAULT if fault else Result.NOT_ACTIVE, fault or 'it is not active'
        elif goal.success_by not in JUDGES:
            refusal = Result.BAD_GOAL, f'success_by is {goal.success_by}; it must be 0, 1 or 2'
        elif not 0 < limit <= LONGEST:
            refusal = (
                Result.BAD_GOAL,
                f'time_limit is {limit:g} s; it must be above 0, at most 86400',
            )
        else:
            refusal = self._begin(handle, runner, limit)
        if refusal is not None:
            self._node.get_logger().warning(f'run refused: {refusal[1]}')
            self._answer(handle, *refusal)

    def _begin(
        self, handle: ServerGoalHandle, runner: PolicyRunner, limit: float
    ) -> tuple[int, str] | None:
        """Give the instruction; return why it is refused, or None."""
        message = String(data=handle.request.instruction)
        stops = stop_words_in(message.data, self._values.stop_words)
        if stops:
            runner.on_instruction(message)  # as on the topic, it pauses the node
            return Result.BAD_GOAL, f'the instruction says {stops!r}: the node is paused'
        try:
            text = check_instruction(message.data)
            runner.policy.check_instruction(text)
        except InstructionError as error:
            return Result.BAD_GOAL, f'instruction refused: {error}'
        run = Run(handle, text, limit, time.monotonic(), runner.output.chunks)
        if handle.request.success_by == Goal.SUCCESS_BY_BRIDGE:
            # volatile: the result of an earlier episode, which is latched, does not come
            run.judge = self._node.create_subscription(
                String,
                'libero_bridge/result',
                lambda result: self._on_result(run, result),
                ORDER_QOS,
            )
        runner.on_instruction(message)
        self._run = run
        return None

    def _on_judge(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        run = self._run
        if run is None:
            response.message = 'no run goes on'
        elif run.handle.request.success_by != Goal.SUCCESS_BY_USER:
            response.message = 'this run is judged by somebody else; cancel it to end it'
        else:
            text = 'a success, says the user' if request.data else 'no success, says the user'
            run.verdict = request.data, text
            self.watch()
            response.success, response.message = True, 'the run is over'
        return response

    def _on_result(self, run: Run, message: String) -> None:
        try:
            result = json.loads(message.data)
            run.verdict = (
                bool(result['success']),
                one_line(result.get('error') or 'says the bridge'),
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            self._node.get_logger().warning('libero_bridge/result is not a result; ignored')

    def _finish(self, run: Run, failure: int, text: str) -> None:
        self._run = None
        runner = self._runner()
        if runner is not None and runner.supervisor.active:
            runner.withdraw(run.text)
        if run.judge is not None:
            self._node.destroy_subscription(run.judge)
        self._node.get_logger().info(f'run ended: {text}')
        self._answer(run.handle, failure, text, self._chunks(run), run.begun)

    def _answer(
        self,
        handle: ServerGoalHandle,
        failure: int,
        text: str,
        chunks: int = 0,
        begun: float | None = None,
    ) -> None:
        result = Result(
            success=failure == Result.NONE,
            failure=failure,
            message=cut(text, 255),
            chunks=chunks,
            elapsed=_since(time.monotonic() if begun is None else begun),
        )

        def give(handle: ServerGoalHandle) -> RunInstruction.Result:
            if handle.is_cancel_requested:
                handle.canceled()
            elif result.success:
                handle.succeed()
            else:
                handle.abort()
            return result

        handle.execute(give)

    def _chunks(self, run: Run) -> int:
        runner = self._runner()
        # a new session counts from 0; then the run has ended
        return max(0, runner.output.chunks - run.chunks) if runner else 0


def _since(begun: float):
    return duration_message(nanoseconds(time.monotonic() - begun))
