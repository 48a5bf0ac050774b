"""A pick-and-place made for how a scene looks: where to grasp, and at which heights to move."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lightvla_ros.errors import SimulationError
from lightvla_ros.sim.arm import Arm
from lightvla_ros.sim.grasps import COLLISION, body_points, narrow_grasp, rim_grasp
from lightvla_ros.sim.libero_env import LiberoEnv

INSIDE = '_contain_region'  # LIBERO's name of what is inside a container


@dataclass(frozen=True)
class GraspPlan:
    """What an expert does, in metres in the world frame.

    :param grasp: Of the hand [3].
    :param yaw: Axis along which the fingers open, the equal one that is nearer to the hand's.
    :param object_position: Of the object's body when the plan was made [3].
    :param object_rotation: Its rotation matrix then [9].
    :param above: Height from which to descend.
    :param carry: Height to carry at.
    :param release: Height to let go at.
    :param target_top: Highest point of the target.
    :param blocked: Whether something tall stands in the straight way to the grasp.
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


class PickAndPlace:
    """The things that a goal is about, read from the simulator's ground truth.

    :param env: Reset; its goal is what is planned for.
    :raises SimulationError: When the goal is another: drawers, stoves, several objects.
    """

    def __init__(self, env: LiberoEnv) -> None:
        self.simulation = env.simulation
        self.model = self.simulation.sim.model._model
        self.data = self.simulation.sim.data._data
        self.arm = Arm(self.model, self.data)
        bodies = self.simulation.obj_body_id
        if not _is_pick_and_place(env.goal, bodies):
            raise SimulationError(
                'the scripted expert puts one object in or on another, but the goal of '
                f'{env.suite} task {env.task} is {env.goal}'
            )
        self.predicate, self._object, self._target = env.goal[0]
        self.body = bodies[self._object]
        self._container = bodies[self._target.removesuffix(INSIDE)]
        self._others = [body for name, body in bodies.items() if name != self._object]

    def object_position(self) -> np.ndarray:
        """Where the object's body is now [3]."""
        return self.data.xpos[self.body].copy()

    def target_xy(self) -> np.ndarray:
        """Where it belongs [2]."""
        if self.predicate == 'in':
            return self.data.site_xpos[self.model.site(self._target).id][:2].copy()
        return self.data.xpos[self._container][:2].copy()

    def plan(self) -> GraspPlan:
        """Plan for what the scene looks like now."""
        arm, start = self.arm, self.object_position()
        points = self._points(self.body)
        bottom, top = points[:, 2].min(), points[:, 2].max()
        obstacles = np.concatenate([self._points(body, COLLISION) for body in self._others])
        if 'bowl' in self._object:
            rotation = self.data.xmat[self.body].reshape(3, 3)
            yaw, grasp = rim_grasp(points, rotation, start, obstacles, arm.yaw)
        else:
            height = max((bottom + top) / 2, top - 0.04, bottom + 0.008)
            slab = points[np.abs(points[:, 2] - height) < 0.015]
            slab = slab if len(slab) > 20 else points
            yaw, across = narrow_grasp(slab, obstacles, arm.yaw, height)
            grasp = np.append(across, height)
        hang = grasp[2] - bottom
        target = self._points(self._container)[:, 2]
        if self.predicate == 'in':
            carry = max(target.max() + 0.03 + hang, top + 0.05)
            release = target.max() - 0.02 + hang
        else:
            carry = max(top + 0.06, target.max() + 0.12 + hang)
            release = target.min() + 0.008 + hang
        above = max(top + 0.07, grasp[2] + 0.08)
        return GraspPlan(
            grasp=grasp,
            yaw=arm.nearest_yaw(yaw),
            object_position=start,
            object_rotation=self.data.xmat[self.body].copy(),
            above=above,
            carry=carry,
            release=release,
            target_top=float(target.max()),
            blocked=_in_the_way(obstacles, arm.position, grasp, above),
        )

    def _points(self, body: int, group: int = 1) -> np.ndarray:
        return body_points(self.model, self.data, body, group)


def _is_pick_and_place(goal: list[list[str]], bodies: dict[str, int]) -> bool:
    if len(goal) != 1 or goal[0][0] not in ('in', 'on'):
        return False
    predicate, moved, target = goal[0]
    container = target.removesuffix(INSIDE)
    return moved in bodies and container in bodies and (container != target) == (predicate == 'in')


def _in_the_way(obstacles: np.ndarray, start: np.ndarray, end: np.ndarray, height: float) -> bool:
    """Whether something tall stands within 10 cm of the straight way to the grasp."""
    way = end[:2] - start[:2]
    relative = obstacles[:, :2] - start[:2]
    along = np.clip(relative @ way / (np.linalg.norm(way) + 1e-6) ** 2, 0, 1)
    distance = np.linalg.norm(relative - along[:, None] * way, axis=1)
    return bool(((distance < 0.10) & (obstacles[:, 2] > height - 0.03)).any())
