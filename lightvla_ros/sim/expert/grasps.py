"""Plans a pick-and-place for a scene: where to grasp, and at which heights to move.

Heights and positions are in metres in the world frame; a yaw is the angle of the axis along which
the fingers open, in radians, modulo pi.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from lightvla_ros.errors import SimulationError
from lightvla_ros.sim.arm import Arm
from lightvla_ros.sim.libero_env import LiberoEnv
from lightvla_ros.sim.looks import VISUAL
from lightvla_ros.sim.segmentation import geoms_under

COLLISION = 0  # robosuite's group of geometries that are not drawn
MAX_OPENING = 0.074  # of the Panda's hand, with some play
FINGER = (0.036, 0.065)  # the fingers' reach from the middle along the opening axis
SURROUNDED = 0.75  # share of the sides where something stands beside a bowl; then it is in a drawer
IN_A_DRAWER = np.deg2rad(120)  # the side where LIBERO's drawers leave most room

INSIDE = '_contain_region'  # LIBERO's name of what is inside a container


def body_points(
    model: mujoco.MjModel, data: mujoco.MjData, body: int, group: int = VISUAL
) -> np.ndarray:
    """Points [N, 3] on a body and all that hangs on it: mesh vertices, and boxes on a grid."""
    points = [np.zeros((0, 3))]
    for geom in geoms_under(model, body):
        if model.geom_group[geom] != group:
            continue
        local = _geom_points(model, geom)
        rotation = data.geom_xmat[geom].reshape(3, 3)
        points.append(local @ rotation.T + data.geom_xpos[geom])
    return np.concatenate(points)


def narrow_grasp(
    points: np.ndarray, obstacles: np.ndarray, yaw: float, height: float
) -> tuple[float, np.ndarray]:
    """Grasp across a narrow side, clear of neighbours, near the present yaw.

    :param points: Of the object, near the height of the grasp.
    :returns: Yaw and the grasp's x, y.
    """
    best = None
    for angle in np.deg2rad(np.arange(0, 180, 5)):
        along, across = _axes(angle)
        p, q = points[:, :2] @ along, points[:, :2] @ across
        width = np.ptp(p)
        centre = (p.max() + p.min()) / 2 * along + (q.max() + q.min()) / 2 * across
        turn = abs((angle - yaw + np.pi / 2) % np.pi - np.pi / 2)
        cost = max(width, 0.03) + (width > MAX_OPENING) + 0.01 * turn
        cost += _crowding(obstacles, centre, along, height, FINGER, both_sides=True)
        if best is None or cost < best[0]:
            best = (cost, angle, centre)
    return best[1], best[2]


def rim_grasp(
    points: np.ndarray,
    rotation: np.ndarray,
    centre: np.ndarray,
    obstacles: np.ndarray,
    yaw: float,
) -> tuple[float, np.ndarray]:
    """Grasp a bowl by its rim, one finger inside.

    In a drawer it is always the same side: which one has the most room there differs by
    millimetres, so pictures that look alike would have several right answers.

    :param rotation: Of the bowl [3, 3]; it may be tilted.
    :param yaw: Of the hand now; the less it has to turn, the better.
    :returns: Yaw and the grasp's x, y, z.
    """
    height = (points - centre) @ rotation[:, 2]
    rim = points[height > height.max() - 0.006]
    best, hindered = None, []
    for angle in np.deg2rad(np.arange(-180, 180, 5)):
        grasp = _at_the_rim(rim, angle, inset=0.004, depth=0.025)
        turn = abs((angle - yaw + np.pi / 2) % np.pi - np.pi / 2)
        cost = 8 * (rim[:, 2].max() - 0.025 - grasp[2]) + 0.25 * turn
        along, _ = _axes(angle)
        crowding = _crowding(
            obstacles, grasp[:2], along, grasp[2], (0.0, FINGER[1]), both_sides=False
        )
        hindered.append(crowding > 0.05)
        cost += 2 * crowding
        if best is None or cost < best[0]:
            best = (cost, angle, grasp)
    if np.mean(hindered) > SURROUNDED:
        return IN_A_DRAWER, _at_the_rim(rim, IN_A_DRAWER, inset=0.012, depth=0.020)
    return best[1], best[2]


def _at_the_rim(rim: np.ndarray, angle: float, inset: float, depth: float) -> np.ndarray:
    """Position [3] of a hand that grasps at an angle, this far inside and below the rim."""
    along, _ = _axes(angle)
    point = rim[np.argmax((rim - rim.mean(axis=0))[:, :2] @ along)]
    return np.append(point[:2] - inset * along, point[2] - depth)


def _geom_points(model: mujoco.MjModel, geom: int) -> np.ndarray:
    """Points of one geometry in its own frame."""
    kind = model.geom_type[geom]
    if kind == mujoco.mjtGeom.mjGEOM_MESH:
        mesh = model.geom_dataid[geom]
        first = model.mesh_vertadr[mesh]
        vertices = model.mesh_vert[first : first + model.mesh_vertnum[mesh]]
        return vertices[:: max(len(vertices) // 3000, 1)]
    if kind == mujoco.mjtGeom.mjGEOM_BOX:
        size = model.geom_size[geom]
        axes = [np.linspace(-1, 1, int(np.clip(np.ceil(2 * s / 0.012), 1, 25)) + 1) for s in size]
        return np.stack(np.meshgrid(*axes, indexing='ij'), axis=-1).reshape(-1, 3) * size
    return np.zeros((0, 3))


def _axes(yaw: float) -> tuple[np.ndarray, np.ndarray]:
    along = np.array([np.cos(yaw), np.sin(yaw)])
    return along, np.array([-along[1], along[0]])


def _crowding(
    obstacles: np.ndarray,
    grasp: np.ndarray,
    along: np.ndarray,
    height: float,
    finger: tuple[float, float],
    both_sides: bool,
) -> float:
    """Cost of obstacle points inside what fingers and palm sweep in a grasp from above."""
    if not len(obstacles):
        return 0.0
    relative = obstacles[:, :2] - grasp
    x, y, z = relative @ along, relative @ np.array([-along[1], along[0]]), obstacles[:, 2]
    reach = np.abs(x) if both_sides else x
    fingers = (
        (reach > finger[0]) & (reach < finger[1]) & (np.abs(y) < 0.018) & (z > height - 0.008)
    ).sum()
    palm = ((np.abs(x) < 0.115) & (np.abs(y) < 0.04) & (z > height + 0.055)).sum()
    return sum(0.5 * min(1, n / 3) + 0.02 * min(n, 20) for n in (fingers, palm))


@dataclass(frozen=True)
class GraspPlan:
    """Plan of an expert, in metres in the world frame.

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
        """Present position of the object's body [3]."""
        return self.data.xpos[self.body].copy()

    def target_xy(self) -> np.ndarray:
        """Position where it belongs [2]."""
        if self.predicate == 'in':
            return self.data.site_xpos[self.model.site(self._target).id][:2].copy()
        return self.data.xpos[self._container][:2].copy()

    def plan(self) -> GraspPlan:
        """Plan for the present scene."""
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
