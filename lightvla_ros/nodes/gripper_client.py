"""The hand, as the chunk executor commands it: by actions, one at a time, without ever waiting.

A real hand takes up to 0.8 s from side to side. When a command is under way for longer than
``hand_time``, the executor lets the arm wait. A command that is not carried out leaves a doubt
about what is between the fingers, so :attr:`why` then holds the arm until a reset:

- the action server is not there, or refuses the command;
- the hand reports a failure, or stops before it is open;
- no answer comes within ``gripper_timeout``.

Closing on nothing is no failure: a policy that misses sees it and tries again. So a grasp has the
whole width as its tolerance, and a hand that stalls while it closes has closed.
"""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

from action_msgs.msg import GoalStatus
from rclpy.action import ActionClient
from rclpy.action.client import ClientGoalHandle
from rclpy.node import Node
from rclpy.task import Future

from lightvla_ros.nodes.lifecycle import TransitionError
from lightvla_ros.nodes.optional_interfaces import interfaces
from lightvla_ros.nodes.parameters import Parameter
from lightvla_ros.runtime.reasons import reason

GRIPPERS = ('none', 'gripper_command', 'franka')
GRIPPER_PARAMETERS = (
    Parameter(
        'gripper',
        'none',
        'What moves the hand: `gripper_command` (the action `franka_gripper/gripper_action`), '
        '`franka` (the actions `franka_gripper/move` and `franka_gripper/grasp`), or nothing.',
        choices=GRIPPERS,
    ),
    Parameter('gripper_width', 0.08, 'Width of the open hand [m].', 0.005, 0.2),
    Parameter('gripper_speed', 0.1, 'Speed of the width, with `franka` [m/s].', 0.005, 0.2),
    Parameter('gripper_force', 20.0, 'Force of a grasp [N].', 0.0, 140.0),
    Parameter(
        'hand_time',
        0.4,
        'How long the arm goes on after a command to the hand, before it waits for it [s]: as long '
        "as the hand took in the policy's training. 0.4 is that of LIBERO's.",
        0.0,
        5.0,
    ),
    Parameter('gripper_timeout', 3.0, 'Longest time that a command may take [s].', 0.1, 60.0),
)


class GripperClient:
    """Opens and closes the hand.

    :param values: The executor's parameters; ``gripper`` is not ``none``.
    :raises TransitionError: When the actions' package is not installed.
    :ivar moves: Whether a command is under way.
    :ivar since: When the newest command was given, by the executor's clock [s].
    :ivar why: Why the arm must hold until :meth:`reset`; empty when it need not.
    :ivar counts: Commands, by what became of them.
    """

    def __init__(self, node: Node, values: SimpleNamespace) -> None:
        self.moves = False
        self.why = ''
        self.counts: Counter[str] = Counter()
        self._node = node
        self._values = values
        self.since = 0.0
        self._opens = False
        self._number = 0  # of the newest command: answers to older ones are ignored
        self._handle: ClientGoalHandle | None = None
        package = 'control_msgs' if values.gripper == 'gripper_command' else 'franka_msgs'
        user = f'gripper {values.gripper}'
        self._actions = interfaces(f'{package}.action', user, TransitionError)
        if package == 'control_msgs':
            kinds = {'gripper_action': self._actions.GripperCommand}
        else:
            kinds = {'move': self._actions.Move, 'grasp': self._actions.Grasp}
        self._clients = {
            name: ActionClient(node, kind, f'franka_gripper/{name}') for name, kind in kinds.items()
        }

    def command(self, opens: bool, now: float) -> None:
        """Open or close the hand. While :attr:`moves` it does nothing.

        :param now: Seconds of the executor's clock.
        """
        if self.moves:
            return
        name, goal = self._goal(opens)
        client = self._clients[name]
        self.counts['opened' if opens else 'closed'] += 1
        if not client.server_is_ready():
            self._fail('gripper_missing', f'no action server franka_gripper/{name}')
            return
        self.moves, self._opens, self.since = True, opens, now
        self._number += 1
        number = self._number
        client.send_goal_async(goal).add_done_callback(
            lambda future: self._on_answer(future, number)
        )

    def look(self, now: float) -> None:
        """Notice that a command takes too long, as when its server has died."""
        taken = now - self.since
        if self.moves and taken > self._values.gripper_timeout:
            if self._handle is not None:
                self._handle.cancel_goal_async()
            self._fail('gripper_timeout', f'{taken:.1f} s')

    def reset(self) -> None:
        """Forget a failure. A command that is under way goes on."""
        self.why = ''

    def forget(self) -> None:
        """Forget a failure and the command that is under way, whose answer will be ignored."""
        self.why = ''
        self.moves, self._handle = False, None
        self._number += 1

    def destroy(self) -> None:
        """Remove the clients."""
        self._number += 1
        for client in self._clients.values():
            client.destroy()

    def _goal(self, opens: bool) -> tuple[str, Any]:
        values = self._values
        if values.gripper == 'gripper_command':
            goal = self._actions.GripperCommand.Goal()
            # of each finger: half of the width between them
            goal.command.position = values.gripper_width / 2 if opens else 0.0
            goal.command.max_effort = values.gripper_force
            return 'gripper_action', goal
        if opens:
            return 'move', self._actions.Move.Goal(
                width=values.gripper_width, speed=values.gripper_speed
            )
        goal = self._actions.Grasp.Goal(
            width=0.0, speed=values.gripper_speed, force=values.gripper_force
        )
        goal.epsilon.inner = goal.epsilon.outer = values.gripper_width
        return 'grasp', goal

    def _on_answer(self, future: Future, number: int) -> None:
        if number != self._number or not self.moves:
            return
        handle = future.result()
        if handle is None or not handle.accepted:
            self._fail('gripper_failed', 'the hand refused the command')
            return
        self._handle = handle
        handle.get_result_async().add_done_callback(lambda future: self._on_end(future, number))

    def _on_end(self, future: Future, number: int) -> None:
        if number != self._number or not self.moves:
            return
        answer = future.result()
        fault = self._fault(answer.status, answer.result)
        if fault:
            self._fail('gripper_failed', fault)
            return
        self.moves, self._handle = False, None
        self.counts['done'] += 1

    def _fault(self, status: int, result: Any) -> str:
        """Return why a command that has ended was not carried out; empty if it was."""
        if self._values.gripper == 'gripper_command':
            if result.reached_goal and status == GoalStatus.STATUS_SUCCEEDED:
                return ''
            if result.stalled and not self._opens:
                return ''  # on an object; franka_gripper aborts when that is not as wide as asked
            return 'the hand stalled before it was open' if result.stalled else 'it gave up'
        if status == GoalStatus.STATUS_SUCCEEDED and result.success:
            return ''
        return f'the hand said {result.error!r}' if result.error else 'it gave up'

    def _fail(self, code: str, detail: str) -> None:
        self.moves, self._handle = False, None
        self._number += 1
        self.counts[code] += 1
        self.why = reason(code, '', detail)
        self._node.get_logger().error(f'{self.why}; the arm holds until a reset')
