"""The actions of franka_gripper around a simulated hand, with the durations of a real one.

As franka_gripper (franka_ros2 43357d1), it carries out one command at a time, aborts what is out of
range, and stops the fingers when a command is cancelled. ``gripper_action`` opens by a move and
closes by a grasp with a tolerance of 5 mm.

Callbacks only store: a goal is carried out by :meth:`HandTwin.tick`, which the simulation's thread
calls, and its result is then given by the node's executor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.node import Node

from lightvla_ros.nodes.optional_interfaces import interfaces
from lightvla_ros.nodes.parameters import ParameterError

WIDEST = 0.08  # m
DEFAULT_SPEED = 0.1  # m/s, of gripper_action
DEFAULT_EPSILON = 0.005  # m, of gripper_action
REACHED = 0.003  # m
STARTS = 0.1  # s until fingers that were sent somewhere can be at rest again


class Hand(Protocol):
    """What the twin needs of a simulated hand; see ``sim/franka_hand.py``."""

    def move(self, width: float, speed: float) -> None:
        """Send the fingers to a width [m] at a speed [m/s]."""

    def halt(self) -> None:
        """Stop the fingers."""

    def width(self) -> float:
        """Return the distance between the fingers [m]."""

    def rests(self) -> bool:
        """Return whether the fingers are at rest."""


@dataclass
class Task:
    """A goal that is carried out.

    :param width: Where the fingers are sent [m].
    :param inner: How much closer than ``width`` they may end [m]; None: it is a move.
    :param outer: How much farther they may end [m].
    """

    handle: ServerGoalHandle
    width: float
    speed: float
    inner: float | None
    outer: float
    begun: float | None = None


class HandTwin:
    """Action servers for one hand.

    :param node: Its executor gives the results.
    :raises ParameterError: When control_msgs or franka_msgs is not installed.
    """

    def __init__(self, node: Node) -> None:
        control, franka = (
            interfaces(f'{package}.action', 'the simulated hand', ParameterError)
            for package in ('control_msgs', 'franka_msgs')
        )
        self._franka = franka
        self._control = control
        self._task: Task | None = None
        self._servers = [
            self._serve(node, control.GripperCommand, 'gripper_action', self._gripper_action),
            self._serve(node, franka.Move, 'move', self._move),
            self._serve(node, franka.Grasp, 'grasp', self._grasp),
        ]

    def tick(self, hand: Hand, now: float) -> None:
        """Carry out the goal. Call it in the simulation's thread, 100 times per second.

        :param now: Simulated time [s].
        """
        task = self._task
        if task is None:
            return
        if task.handle.is_cancel_requested:
            hand.halt()
            self._end(task, hand, False)
            return
        if task.begun is None:
            if not (0 <= task.width <= WIDEST and task.speed > 0):
                self._end(task, hand, False, 'out of range')
                return
            task.begun = now
            hand.move(task.width, task.speed)
            return
        if now - task.begun < STARTS or not hand.rests():
            return
        away = hand.width() - task.width
        inner, outer = (REACHED, REACHED) if task.inner is None else (task.inner, task.outer)
        self._end(task, hand, -inner <= away <= outer)

    def abandon(self, hand: Hand) -> None:
        """Give up the goal, because the episode is over."""
        if self._task is not None:
            self._end(self._task, hand, False, 'the episode is over')

    def destroy(self) -> None:
        """Remove the servers."""
        for server in self._servers:
            server.destroy()

    def _serve(
        self, node: Node, kind: Any, name: str, task: Callable[[ServerGoalHandle], Task]
    ) -> ActionServer:
        def accepted(handle: ServerGoalHandle) -> None:
            self._task = task(handle)

        return ActionServer(
            node,
            kind,
            f'franka_gripper/{name}',
            execute_callback=lambda handle: None,  # replaced when the goal has ended
            goal_callback=lambda _: GoalResponse.REJECT if self._task else GoalResponse.ACCEPT,
            handle_accepted_callback=accepted,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
        )

    def _move(self, handle: ServerGoalHandle) -> Task:
        return Task(handle, handle.request.width, handle.request.speed, None, 0.0)

    def _grasp(self, handle: ServerGoalHandle) -> Task:
        goal = handle.request
        return Task(handle, goal.width, goal.speed, goal.epsilon.inner, goal.epsilon.outer)

    def _gripper_action(self, handle: ServerGoalHandle) -> Task:
        width = 2 * handle.request.command.position  # of each finger
        inner = None if width > WIDEST / 2 else DEFAULT_EPSILON
        return Task(handle, width, DEFAULT_SPEED, inner, DEFAULT_EPSILON)

    def _end(self, task: Task, hand: Hand, success: bool, error: str = '') -> None:
        """Let the node's executor give the result."""
        width, cancelled = hand.width(), task.handle.is_cancel_requested
        error = error or ('' if success else 'cancelled' if cancelled else 'not as wide as asked')

        def give(handle: ServerGoalHandle) -> Any:
            if success:
                handle.succeed()
            elif cancelled:
                handle.canceled()
            else:
                handle.abort()
            if isinstance(handle.request, self._control.GripperCommand.Goal):
                return self._control.GripperCommand.Result(
                    position=width / 2, reached_goal=success, stalled=not success and not cancelled
                )
            kind = self._franka.Grasp
            if isinstance(handle.request, self._franka.Move.Goal):
                kind = self._franka.Move
            return kind.Result(success=success, error=error)

        self._task = None
        task.handle.execute(give)
