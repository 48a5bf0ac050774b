"""A teacher that needs no history: what is right to do in *this* state, whatever came before.

The scripted expert counts steps and follows stages; from a state that it did not bring about it
knows nothing. This one reads the stage from the scene (is the object held, is it placed, where is
the hand), so it can label any state that a learner visits (DAgger) and any state after a push, and
the same image never has two right answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import mujoco
import numpy as np

from lightvla_ros.sim.arm import Arm
from lightvla_ros.sim.expert import CLOSED, INSIDE, in_the_way, is_pick_and_place
from lightvla_ros.sim.grasps import COLLISION, body_points, narrow_grasp, rim_grasp
from lightvla_ros.sim.libero_env import OPEN, LiberoEnv, SimulationError

MOST_PLANS = 30  # per episode; an object that rolls away is not chased for ever


@dataclass(frozen=True)
class Plan:
    """A grasp, made for where the object lay when it was made.

    :param grasp: Of the hand relative to the object [3], metres.
    :param yaw: Axis along which the fingers open.
    :param object_position: Of the object's body then [3].
    :param object_rotation: Its rotation matrix then [9].
    :param above: Height from which to descend.
    :param carry: Height to carry at.
    :param release: Height to let go at.
    :param target_top: Highest point of the target.
    :param blocked: Whether something tall stands in the straight way.
    """

    grasp: np.ndarray
    yaw: float
    object_position: np.ndarray
    object_rotation: np.ndarray
    above: float
    carry: float
    release: float
    target_top: float
    blocked: bool


class Memory(NamedTuple):
    """The little that is kept between states: the present plan, and how many there were."""

    plan: Plan
    plans: int


class _Reach(NamedTuple):
    """How far the hand is from the grasp: across [m], in height [m], in turn [rad]."""

    across: float
    height: float
    turn: float

    def within(self, across: float, height: float, turn: float) -> bool:
        return self.across < across and self.height < height and self.turn < turn


class MemorylessExpert:
    """Puts one object in or on another, from any state on the way.

    :param env: Reset; its goal is the expert's.
    :raises SimulationError: When the goal is another: drawers, stoves, several objects.
    """

    def __init__(self, env: LiberoEnv) -> None:
        self._env = env
        self._simulation = env.simulation
        self._model = self._simulation.sim.model._model
        self._data = self._simulation.sim.data._data
        self._arm = Arm(self._model, self._data)
        bodies = self._simulation.obj_body_id
        if not is_pick_and_place(env.goal, bodies):
            raise SimulationError(
                f'the expert puts one object in or on another, but the goal of {env.suite} task '
                f'{env.task} is {env.goal}'
            )
        self._predicate, self._object, self._target = env.goal[0]
        self._body = bodies[self._object]
        self._container = bodies[self._target.removesuffix(INSIDE)]
        gripper = self._simulation.robots[0].gripper
        self._finger_joints = [self._model.joint(name).dofadr[0] for name in gripper.joints]
        self._finger_places = [self._model.joint(name).qposadr[0] for name in gripper.joints]
        self._fingers = [
            {self._model.geom(name).id for part in parts for name in gripper.important_geoms[part]}
            for parts in (('left_finger', 'left_fingerpad'), ('right_finger', 'right_fingerpad'))
        ]
        self._geoms = self._geoms_under(self._body)
        self.finished = False
        self.stage = ''
        self.memory = Memory(self._make_plan(), 1)

    def act(self) -> np.ndarray:
        """Return the action [7] for the present state; ``stage`` and ``finished`` tell of it."""
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
        beside = np.clip((position - thing)[:2], -0.1, 0.1) if self._predicate == 'on' else 0.0
        goal = self._target_xy() + beside
        away = np.linalg.norm(goal - position[:2])
        descending = away < 0.05 and position[2] < plan.carry - 0.03
        if descending or away < 0.015:
            off = away > 0.02 and self._predicate == 'on'
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
            self.memory = Memory(self._make_plan(), self.memory.plans + 1)
            grasp, reach = self._reach()
        plan = self.memory.plan
        low = position[2] < plan.above - 0.02
        if partly_closed and low:
            up = np.append(position[:2], max(position[2], plan.above))
            return self._go('reopen', up if opening < 0.02 or reach.across > 0.02 else position)
        if reach.across < (0.02 if low else 0.012) and reach.turn < (0.3 if low else 0.15):
            return self._go('descend', grasp)
        if low and reach.across > 0.02 and position[2] < plan.above - 0.03:
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
        """Where to grasp, as the object lies now, and how far that is."""
        plan, position = self.memory.plan, self._arm.position
        grasp = self._data.xpos[self._body] + plan.grasp
        turn = abs((plan.yaw - self._arm.yaw + np.pi / 2) % np.pi - np.pi / 2)
        across = float(np.linalg.norm((position - grasp)[:2]))
        return grasp, _Reach(across, abs(float(position[2] - grasp[2])), turn)

    def _lies_elsewhere(self) -> bool:
        """Whether the object has moved or turned since the plan, and has come to rest."""
        plan = self.memory.plan
        moved = np.linalg.norm(self._data.xpos[self._body] - plan.object_position) > 0.004
        turned = (
            self._data.xmat[self._body] @ plan.object_rotation < 2.97
        )  # trace: about 10 degrees
        first = self._model.body_dofadr[self._body]
        return (moved or turned) and np.linalg.norm(self._data.qvel[first : first + 3]) < 0.05

    def _make_plan(self) -> Plan:
        arm, body = self._arm, self._body
        points = self._points(body)
        bottom, top = points[:, 2].min(), points[:, 2].max()
        others = [self._points(b, COLLISION) for b in self._others()]
        obstacles = np.concatenate(others)
        place = self._data.xpos[body].copy()
        if 'bowl' in self._object:
            rotation = self._data.xmat[body].reshape(3, 3)
            yaw, grasp = rim_grasp(points, rotation, place, obstacles, arm.yaw)
        else:
            height = max((bottom + top) / 2, top - 0.04, bottom + 0.008)
            slab = points[np.abs(points[:, 2] - height) < 0.015]
            slab = slab if len(slab) > 20 else points
            yaw, across = narrow_grasp(slab, obstacles, arm.yaw, height)
            grasp = np.append(across, height)
        hang = grasp[2] - bottom
        target = self._points(self._container)[:, 2]
        if self._predicate == 'in':
            carry = max(target.max() + 0.03 + hang, top + 0.05)
            release = target.max() - 0.02 + hang
        else:
            carry = max(top + 0.06, target.max() + 0.12 + hang)
            release = target.min() + 0.008 + hang
        above = max(top + 0.07, grasp[2] + 0.08)
        return Plan(
            grasp=grasp - place,
            yaw=arm.nearest_yaw(yaw),
            object_position=place,
            object_rotation=self._data.xmat[body].copy(),
            above=above,
            carry=carry,
            release=release,
            target_top=float(target.max()),
            blocked=in_the_way(obstacles, arm.position, grasp, above),
        )

    def _target_xy(self) -> np.ndarray:
        if self._predicate == 'in':
            return self._data.site_xpos[self._model.site(self._target).id][:2].copy()
        return self._data.xpos[self._container][:2].copy()

    def _placed(self) -> bool:
        if self._predicate == 'in':
            thing = self._data.xpos[self._body]
            inside = np.linalg.norm(thing[:2] - self._target_xy()) < 0.07
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

    def _others(self) -> list[int]:
        return [b for name, b in self._simulation.obj_body_id.items() if name != self._object]

    def _points(self, body: int, group: int = 1) -> np.ndarray:
        return body_points(self._model, self._data, body, group)

    def _geoms_under(self, body: int) -> set[int]:
        found = set()
        for geom in range(self._model.ngeom):
            owner = self._model.geom_bodyid[geom]
            while owner not in (0, body):
                owner = self._model.body_parentid[owner]
            if owner == body:
                found.add(geom)
        return found
