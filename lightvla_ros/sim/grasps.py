"""Where to grasp: geometry read from the simulator, for the scripted expert.

Heights and positions are in metres in the world frame; a yaw is the angle of the axis along which
the fingers open, in radians, modulo pi.
"""

from __future__ import annotations

import mujoco
import numpy as np

VISUAL, COLLISION = 1, 0  # robosuite's geometry groups
MAX_OPENING = 0.074  # of the Panda's hand, with some play
FINGER = (0.036, 0.065)  # the fingers' reach from the middle along the opening axis


def body_points(
    model: mujoco.MjModel, data: mujoco.MjData, body: int, group: int = VISUAL
) -> np.ndarray:
    """Points [N, 3] on a body and all that hangs on it: mesh vertices, and boxes on a grid."""
    points = [np.zeros((0, 3))]
    for geom in range(model.ngeom):
        owner = model.geom_bodyid[geom]
        while owner not in (0, body):
            owner = model.body_parentid[owner]
        if owner != body or model.geom_group[geom] != group:
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
    depth: float = 0.025,
) -> tuple[float, np.ndarray]:
    """Grasp a bowl by its rim, one finger inside.

    :param rotation: Of the bowl [3, 3]; it may be tilted.
    :param depth: How far below the rim the fingers close.
    :returns: Yaw and the grasp's x, y, z.
    """
    height = (points - centre) @ rotation[:, 2]
    rim = points[height > height.max() - 0.006]
    best = None
    for angle in np.deg2rad(np.arange(-180, 180, 15)):
        along, _ = _axes(angle)
        index = np.argmax((rim - rim.mean(axis=0))[:, :2] @ along)
        grasp = np.append(rim[index, :2] - 0.004 * along, rim[index, 2] - depth)
        turn = abs((angle - yaw + np.pi / 2) % np.pi - np.pi / 2)
        cost = 8 * (rim[:, 2].max() - rim[index, 2]) + 0.25 * turn
        cost += 2 * _crowding(
            obstacles, grasp[:2], along, grasp[2], (0.0, FINGER[1]), both_sides=False
        )
        if best is None or cost < best[0]:
            best = (cost, angle, grasp)
    return best[1], best[2]


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
