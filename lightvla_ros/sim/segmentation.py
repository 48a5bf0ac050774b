"""Segmentation by the simulator: objects, fixtures, robot and gripper in each pixel."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

BACKGROUND, ROBOT, GRIPPER = 'background', 'robot', 'gripper'


def geoms_under(model: mujoco.MjModel, body: int) -> np.ndarray:
    """Return the indices of the geometries of a body, and of all that hangs on it."""
    found = []
    for geom in range(model.ngeom):
        owner = model.geom_bodyid[geom]
        while owner not in (0, body):
            owner = model.body_parentid[owner]
        if owner == body:
            found.append(geom)
    return np.array(found, int)


class Segmentation:
    """Names of a scene's things, and images of their indices.

    Indices are those of :attr:`names`; 0 is the background: floor, table, walls, arena.

    :param simulation: Robosuite's environment.
    """

    def __init__(self, simulation: Any) -> None:
        self._sim = simulation.sim
        model = self._sim.model._model
        bodies = simulation.obj_body_id
        self.names: tuple[str, ...] = (BACKGROUND, ROBOT, GRIPPER, *bodies)
        owner = {body: index for index, body in enumerate(bodies.values(), start=3)}
        self._of_geom = np.array(
            [self._owner(model, model.geom_bodyid[geom], owner) for geom in range(model.ngeom)],
            np.uint8,
        )

    def render(self, camera: str, size: int) -> np.ndarray:
        """Draw one camera: uint8 [size, size] of indices, upright."""
        found = self._sim.render(width=size, height=size, camera_name=camera, segmentation=True)
        kind, geom = found[::-1, :, 0], found[::-1, :, 1]
        shown = self._of_geom[np.where(geom >= 0, geom, 0)]
        # int(): comparing an array with MuJoCo's enum is a Python call per pixel
        return np.where((kind == int(mujoco.mjtObj.mjOBJ_GEOM)) & (geom >= 0), shown, np.uint8(0))

    @staticmethod
    def _owner(model: mujoco.MjModel, body: int, owner: dict[int, int]) -> int:
        """Find the thing that a body is part of."""
        while body:
            if body in owner:
                return owner[body]
            name = mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_BODY, body) or ''
            if name.startswith('gripper0'):
                return 2
            if name.startswith('robot0'):
                return 1
            body = model.body_parentid[body]
        return 0
