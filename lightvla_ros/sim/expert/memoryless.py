"""An expert without memory: its action depends on the present state alone.

The scripted expert counts steps and follows stages; from a state that it did not bring about it
knows nothing. This one reads the stage from the scene (is the object held, is it placed, where is
the hand), so it can label any state that a learner visits (DAgger) and any state after a push, and
the same image never has two right answers.
"""

from __future__ import annotations

from typing import NamedTuple

import mujoco
import numpy as np

from lightvla_ros.sim.expert.grasps import GraspPlan, PickAndPlace
from lightvla_ros.sim.expert.script import CLOSED
from lightvla_ros.sim.libero_env import OPEN, LiberoEnv
from lightvla_ros.sim.segmentation import geoms_under

MOST_PLANS = 30  # per episode; an object that rolls away is not chased for ever


class Memory(NamedTuple):
    """State between calls: the present plan, and the number of plans so far."""

    plan: GraspPlan
    plans: int


class _Reach(NamedTuple):
    """Distance of the hand from the grasp: across [m], in height [m], in rotation [rad].

    :param along: The part of ``across`` along which the fingers open [m].
    """

    across: float
    height: float
    turn: float
    along: float

    @property
    def straight_below(self) -> bool:
        """Whether a low hand may go down from here: beside its opening there is room to slide.

        A stretched arm that goes down is dragged aside by up to 2 cm, and comes back below.
        """
        return self.along < 0.02 and self.across < 0.035

    def within(self, across: float, height: float, turn: float) -> bool:
        return self.across < across and self.height < height and self.turn < turn


class MemorylessExpert:
    """Puts one object in or on another, from any state on the way.

    :param env: Reset; its goal is the expert's.
    :raises SimulationError: When the goal is another: drawers, stoves, several objects.
    """

    def __init__(self, env: LiberoEnv) -> None:
        self._task = PickAndPlace(env)
        self._simulation, self._arm = env.simulation, self._task.arm
        self._model, self._data, self._body = self._task.model, self._task.data, self._task.body
        gripper = self._simulation.robots[0].gripper
        self._finger_joints = [self._model.joint(name).dofadr[0] for name in gripper.joints]
        self._finger_places = [self._model.joint(name).qposadr[0] for name in gripper.joints]
        self._fingers = [
            {self._model.geom(name).id for part in parts for name in gripper.important_geoms[part]}
            for parts in (('left_finger', 'left_fingerpad'), ('right_finger', 'right_fingerpad'))
        ]
        self._geoms = set(geoms_under(self._model, self._body).tolist())
        self.finished = False
        self.stage = ''
        self.memory = Memory(self._task.plan(), 1)

    def act(self) -> np.ndarray:
        """Return the action [7] for the present state; ``stage`` and ``finished`` describe it."""
        position = self._arm.position
        self.finished = False
        if self._held():
            return self._bring(position)
        if self._placed():
            return self._retreat(position)
        return self._fetch(position)

    # -- the object is in the hand

    def _bring(self, position: np.ndarray) -> np.ndarray:
        plan, thing = self.memory.plan, self._data.xpos[self._body]
        # a bowl held by its rim hangs beside the hand; objects dropped in a basket do not
        beside = np.clip((position - thing)[:2], -0.1, 0.1) if self._task.predicate == 'on' else 0.0
        goal = self._task.target_xy() + beside
        away = np.linalg.norm(goal - position[:2])
        descending = away < 0.05 and position[2] < plan.carry - 0.03
        if descending or away < 0.015:
            off = away > 0.02 and self._task.predicate == 'on'
            if position[2] > plan.release + 0.008 or off:
                height = plan.release if away < 0.025 else max(plan.release, position[2])
                return self._go('lower', np.append(goal, height), CLOSED)
            return self._go('open', np.append(goal, plan.release), OPEN)
        closing = np.abs(self._data.qvel[self._finger_joints]).max() > 0.008
        if thing[2] < plan.object_position[2] + 0.01 and closing:
            return self._go('close', position, CLOSED)
        if position[2] < plan.carry - 0.02:
            return self._go('lift', np.append(position[:2], plan.carry), CLOSED)
        return self._go('carry', np.append(goal, plan.carry), CLOSED)

    # -- it lies where it belongs

    def _retreat(self, position: np.ndarray) -> np.ndarray:
        plan = self.memory.plan
        self.finished = bool(position[2] > plan.carry - 0.03)
        height = position[2] if self.finished else plan.carry
        return self._go('retreat', np.append(position[:2], height), OPEN, yaw=self._arm.yaw)

    # -- it is still to be fetched

    def _fetch(self, position: np.ndarray) -> np.ndarray:
        opening = float(np.abs(self._data.qpos[self._finger_places]).sum())
        partly_closed = opening < 0.07
        grasp, reach = self._reach()
        still = self._hand_speed() < 0.012 and reach.within(0.018, 0.035, 0.25)
        near = reach.within(*((0.016, 0.014, 0.2) if partly_closed else (0.009, 0.009, 0.1)))
        begun = opening < 0.0745 and partly_closed and reach.within(0.018, 0.035, 0.25)
        if (near or still or begun) and opening > 0.006:
            return self._go('close', grasp, CLOSED)
        if self._lies_elsewhere() and self.memory.plans < MOST_PLANS:
            self.memory = Memory(self._task.plan(), self.memory.plans + 1)
            grasp, reach = self._reach()
        plan = self.memory.plan
        low = position[2] < plan.above - 0.02
        if partly_closed and low:
            up = np.append(position[:2], max(position[2], plan.above))
            return self._go('reopen', up if opening < 0.02 or reach.across > 0.02 else position)
        straight = reach.straight_below if low else reach.across < 0.012
        if straight and reach.turn < (0.3 if low else 0.15):
            return self._go('descend', grasp)
        if low and not reach.straight_below and position[2] < plan.above - 0.03:
            return self._go('raise', np.append(position[:2], plan.above))
        height = plan.above
        if plan.blocked and reach.across > 0.03:
            height = max(height + 0.03, position[2])
        return self._go('above', np.append(grasp[:2], height))

    def _go(
        self, stage: str, position: np.ndarray, gripper: float = OPEN, yaw: float | None = None
    ) -> np.ndarray:
        self.stage = stage
        yaw = self._arm.nearest_yaw(self.memory.plan.yaw) if yaw is None else yaw
        return self._arm.action_towards(position, yaw, gripper)

    def _reach(self) -> tuple[np.ndarray, _Reach]:
        """Return the grasp for the object's present pose, and the hand's distance from it."""
        plan, position = self.memory.plan, self._arm.position
        # moved along with the object
        grasp = self._data.xpos[self._body] + (plan.grasp - plan.object_position)
        turn = abs((plan.yaw - self._arm.yaw + np.pi / 2) % np.pi - np.pi / 2)
        offset = (position - grasp)[:2]
        along = abs(float(offset @ [np.cos(self._arm.yaw), np.sin(self._arm.yaw)]))
        height = abs(float(position[2] - grasp[2]))
        return grasp, _Reach(float(np.linalg.norm(offset)), height, turn, along)

    def _lies_elsewhere(self) -> bool:
        """Whether the object has moved or turned since the plan, and has come to rest."""
        plan = self.memory.plan
        moved = np.linalg.norm(self._data.xpos[self._body] - plan.object_position) > 0.004
        turned = (
            self._data.xmat[self._body] @ plan.object_rotation < 2.97
        )  # trace: about 10 degrees
        first = self._model.body_dofadr[self._body]
        return (moved or turned) and np.linalg.norm(self._data.qvel[first : first + 3]) < 0.05

    def _placed(self) -> bool:
        if self._task.predicate == 'in':
            thing = self._data.xpos[self._body]
            inside = np.linalg.norm(thing[:2] - self._task.target_xy()) < 0.07
            return bool(inside and thing[2] < self.memory.plan.target_top)
        return bool(self._simulation._check_success())

    def _held(self) -> bool:
        """Whether both fingers touch the object."""
        touching = [False, False]
        for contact in self._data.contact[: self._data.ncon]:
            pair = {int(contact.geom1), int(contact.geom2)}
            if pair & self._geoms:
                for finger, geoms in enumerate(self._fingers):
                    touching[finger] |= bool(pair & geoms)
        return all(touching)

    def _hand_speed(self) -> float:
        velocity = np.zeros(6)
        kind = mujoco.mjtObj.mjOBJ_SITE
        mujoco.mj_objectVelocity(self._model, self._data, kind, self._arm.site, velocity, 0)
        return float(np.linalg.norm(velocity[3:]))
