"""Executes chunks: a stream of chunks and measured poses in, commanded poses and gripper out.

This is what the chunk executor does in each tick, without ROS: the timeline says where the end
effector should be now, the safety filter says where it may be, and the switch says whether the
gripper gets a command. A real hand takes up to 0.8 s, and a policy that was trained with a faster
one would lift before it has closed. So the arm goes on for as long as the hand of the training
took, and then waits for the rest (``docs/how-to/fr3-crisp.md``). The chunk goes on where it was
when the hand has come to rest. What the policy saw while the arm waited is not acted on: a hand
that closes beside a resting arm does not occur in its training.
"""

from __future__ import annotations

from dataclasses import dataclass

from lightvla_ros.policy.poses import Pose
from lightvla_ros.runtime.chunk_timeline import ChunkTimeline, ReceivedChunk
from lightvla_ros.runtime.gripper_switch import GripperSwitch
from lightvla_ros.runtime.reasons import reason
from lightvla_ros.runtime.safety_filter import Command, Mode, SafetyFilter
from lightvla_ros.runtime.safety_limits import SafetyLimits
from lightvla_ros.runtime.seams import Seams


@dataclass(frozen=True)
class Tick:
    """What to send now.

    :param command: The pose for the arm's controller, and why it does not move.
    :param gripper: True: open; False: close; None: send nothing.
    """

    command: Command
    gripper: bool | None


class ChunkExecutor:
    """Turns chunks into commands, for one of two ways to execute a step.

    Not thread-safe. Call :meth:`tick` 50 to 100 times per second.

    :param execution: ``spring`` or ``displacement``.
    :param blended: See :class:`ChunkTimeline`.
    :param speed: See :class:`ChunkTimeline`.
    :raises ConfigError: When ``execution`` is neither.
    """

    def __init__(
        self, limits: SafetyLimits, execution: str, blended: int = 0, speed: float = 1.0
    ) -> None:
        self.filter = SafetyFilter(limits, execution)
        self._timeline = ChunkTimeline(execution, blended, speed)
        self._switch = GripperSwitch()
        self._hand_moves = False

    @property
    def seams(self) -> Seams:
        """How well the chunks have fitted together until now."""
        return self._timeline.seams

    def offer(self, received: ReceivedChunk, now: int) -> str:
        """Take a chunk; return why it was refused, or nothing.

        :param now: ROS time [ns].
        """
        return self._timeline.offer(received, now)

    def measure(self, now: float, pose: Pose) -> None:
        """Take a measured pose of the end effector in the base frame.

        :param now: Seconds of a steady clock.
        """
        self.filter.measure(now, pose)

    def hand(self, moves: bool, waits: bool, now: int) -> None:
        """Say what the hand does at the moment.

        :param moves: Whether it executes a command; it gets no other one meanwhile.
        :param waits: Whether the arm must wait for it.
        :param now: ROS time [ns].
        """
        self._hand_moves = moves
        if waits:
            self._timeline.wait(now)
        else:
            self._timeline.go_on(now)

    def forget(self, why: str) -> None:
        """Hold, and forget the chunks, because one was damaged or the clock has jumped."""
        self._timeline.forget(why)

    def reset(self) -> bool:
        """Leave a stop, and forget all chunks and their session.

        :returns: Whether it is done; False while the commanded pose moves.
        """
        if not self.filter.reset():
            return False
        self._timeline.reset()
        self._switch = GripperSwitch()  # what the hand did meanwhile is not known
        return True

    def tick(self, now: float, ros_now: int, obstacle: str = '') -> Tick:
        """Return what to send now.

        :param now: Seconds of a steady clock.
        :param ros_now: ROS time [ns], to which the chunks' times refer.
        :param obstacle: Why the arm must hold, whatever the chunks say; empty if it need not.
        """
        # only poses that the filter believes: with another one the target would get the blame
        measured, commanded = self.filter.measured, self.filter.commanded
        target, why = None, reason('state_missing')
        if measured is not None:
            target = self._timeline.target_at(ros_now, measured, commanded or measured)
            why = reason('hand_moves') if self._timeline.waits else self._timeline.why
        opening = self._timeline.opening
        if obstacle:
            target, why = None, obstacle
        command = self.filter.step(now, target, why)
        if command.mode is not Mode.MOVE or self._hand_moves:
            opening = None  # an arm that may not move has no reason to grasp or to let go
        gripper = self._switch.command(now, opening)
        return Tick(command, gripper)
