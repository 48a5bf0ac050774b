"""A scripted pick-and-place expert for LIBERO's Panda: waypoints, and P-control to reach them.

It reads the simulator's ground truth. Its actions are OSC_POSE actions as any policy's: they prove
the loop (replay) and teach policies (demonstrations).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lightvla_ros.sim.expert.grasps import PickAndPlace
from lightvla_ros.sim.libero_env import OPEN, LiberoEnv

CLOSED = 1.0
REPLANS = 2


@dataclass
class Waypoint:
    """One stage of the script.

    :param target: Returns the position to reach [3]; evaluated at every step.
    :param tolerance: Horizontal and vertical distance at which it counts as reached [m].
    :param turn_tolerance: Largest remaining turn [rad].
    :param limit: Steps after which the script goes on in any case.
    :param dwell: Whether to stay for ``limit`` steps, reached or not.
    :param close: Whether it ends when the fingers have stopped.
    :param then: Called at its end; may return new stages, which replace all.
    """

    target: Callable[[], np.ndarray]
    yaw: float
    gripper: float
    tolerance: tuple[float, float] = (0.012, 0.012)
    turn_tolerance: float = 0.15
    limit: int = 60
    dwell: bool = False
    close: bool = False
    then: Callable[[], list[Waypoint] | None] = lambda: None


class Expert:
    """Solves a task whose goal is to put one object in or on another.

    :param env: Just reset; the plan is made from what the scene looks like now.
    :raises SimulationError: When the goal is another: drawers, stoves, several objects.
    """

    def __init__(self, env: LiberoEnv) -> None:
        self._task = PickAndPlace(env)
        self._arm = self._task.arm
        self._replans = REPLANS
        self._start(self._plan())
        self.finished = False

    def act(self) -> np.ndarray:
        """Return the next action [7]; after the end of the script it keeps the last pose."""
        stage = self._stages[self._index]
        position = np.asarray(stage.target(), dtype=float)
        action = self._arm.action_towards(position, stage.yaw, stage.gripper)
        self._steps += 1
        if self._ended(stage, position):
            self._advance(stage)
        return action

    def _ended(self, stage: Waypoint, position: np.ndarray) -> bool:
        if stage.close:
            width = float(np.linalg.norm(self._arm.finger_axis))
            still = abs(width - self._width) < 4e-4 and self._steps > 4
            self._width = width
            self._still = self._still + 1 if still else 0
            return self._still >= 2 or self._steps >= 22  # a full close takes about 16
        if self._steps >= stage.limit:
            return True
        if stage.dwell:
            return False
        error = position - self._arm.position
        turn = abs((stage.yaw - self._arm.yaw + np.pi) % (2 * np.pi) - np.pi)
        across, up = stage.tolerance
        return bool(
            np.linalg.norm(error[:2]) < across
            and abs(error[2]) < up
            and turn < stage.turn_tolerance
        )

    def _advance(self, stage: Waypoint) -> None:
        stages = stage.then()
        if stages is not None:
            self._start(stages)
        elif self._index + 1 < len(self._stages):
            self._index += 1
            self._steps = 0
        else:
            self.finished = True

    def _start(self, stages: list[Waypoint]) -> None:
        self._stages = stages
        self._index = 0
        self._steps = 0
        self._width = np.inf
        self._still = 0

    def _plan(self) -> list[Waypoint]:
        """Plan: above, descend, close, lift, carry, lower, open, retreat."""
        arm, task, plan = self._arm, self._task, self._task.plan()
        grasp, yaw, carry = plan.grasp, plan.yaw, plan.carry
        above = np.append(grasp[:2], plan.above)
        high = np.append(grasp[:2], max(arm.position[2], plan.above) + 0.02)

        def approach() -> np.ndarray:
            if plan.blocked and np.linalg.norm(arm.position[:2] - grasp[:2]) >= 0.03:
                return high
            return above

        def over_target(height: float) -> Callable[[], np.ndarray]:
            def position() -> np.ndarray:
                # a bowl held by its rim hangs beside the hand; objects dropped in a basket do not
                offset = (arm.position - task.object_position())[:2]
                held = np.clip(offset, -0.1, 0.1) if task.predicate == 'on' else 0.0
                return np.append(task.target_xy() + held, height)

            return position

        def replan_if_moved() -> list[Waypoint] | None:
            if np.linalg.norm(task.object_position() - plan.object_position) > 0.004:
                return self._replan()
            return None

        def retry_if_missed() -> list[Waypoint] | None:
            if task.object_position()[2] >= plan.object_position[2] + 0.02 or not self._replans:
                return None
            here = arm.position[:2]
            return [
                Waypoint(
                    lambda: np.append(here, carry),
                    arm.yaw,
                    OPEN,
                    limit=8,
                    dwell=True,
                    then=self._replan,
                )
            ]

        return [
            Waypoint(approach, yaw, OPEN, (0.012, 0.03), limit=80, then=replan_if_moved),
            Waypoint(lambda: grasp, yaw, OPEN, (0.008, 0.006), 0.1, limit=40),
            Waypoint(lambda: grasp, yaw, CLOSED, close=True),
            Waypoint(
                lambda: np.append(grasp[:2], carry),
                yaw,
                CLOSED,
                (0.03, 0.02),
                then=retry_if_missed,
            ),
            Waypoint(over_target(carry), yaw, CLOSED, (0.012, 0.03), limit=90),
            Waypoint(over_target(plan.release), yaw, CLOSED, (0.012, 0.008), limit=40),
            # as long as the fingers need: retreat earlier, and a carton hangs on one of them
            Waypoint(over_target(plan.release), yaw, OPEN, limit=16, dwell=True),
            Waypoint(lambda: np.append(arm.position[:2], carry), yaw, OPEN, (0.05, 0.03), limit=40),
        ]

    def _replan(self) -> list[Waypoint] | None:
        if not self._replans:
            return None
        self._replans -= 1
        return self._plan()
