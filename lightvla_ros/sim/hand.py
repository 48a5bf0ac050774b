"""Finds the object that the hand grasps, from the simulator."""

from __future__ import annotations

import numpy as np

from lightvla_ros.sim.arm import Arm
from lightvla_ros.sim.libero_env import LiberoEnv

LIFTED = 0.02  # m above where it lay at the start
NONE = 'none'


class Hand:
    """Watches the movable objects of a scene, except what the goal puts them in or on.

    :param env: Just reset, with the episode's goal.
    """

    def __init__(self, env: LiberoEnv) -> None:
        simulation = env.simulation
        model, self._data = simulation.sim.model._model, simulation.sim.data._data
        self._arm = Arm(model, self._data)
        places = [place for predicate in env.goal for place in predicate[2:]]
        self._bodies = {
            name: simulation.obj_body_id[name]
            for name in simulation.objects_dict
            if not any(place == name or place.startswith(f'{name}_') for place in places)
        }
        self.names = tuple(self._bodies)
        owners = {body: index for index, body in enumerate(self._bodies.values())}
        owner_of_body = np.full(model.nbody, -1)
        for body in range(1, model.nbody):  # parents come before their children
            owner_of_body[body] = owners.get(body, owner_of_body[model.body_parentid[body]])
        self._owner = owner_of_body[model.geom_bodyid]  # [geometries], -1 where it is no object's
        self._finger = np.zeros(model.ngeom, int)  # 1 left, 2 right
        geoms = simulation.robots[0].gripper.important_geoms
        for finger, part in ((1, 'left_finger'), (2, 'right_finger')):
            for name in geoms[part]:
                self._finger[model.geom(name).id] = finger
        self._heights = self._positions()[:, 2]
        self.held: tuple[str, ...] = ()
        self.lifted: tuple[str, ...] = ()
        self.first = NONE

    def look(self) -> None:
        """Read the present state; call it after every step.

        ``held`` names the object that both fingers touch, ``lifted`` the object that is 2 cm above
        its first place, and ``first`` the first object of the episode that was either; of several,
        the nearest.
        """
        pairs = self._data.contact.geom[: self._data.ncon]
        touched = np.zeros((len(self.names) + 1, 3), bool)  # the last row is of no object
        for one, other in (pairs.T, pairs.T[::-1]):
            touched[self._owner[one], self._finger[other]] = True
        held = touched[:-1, 1] & touched[:-1, 2]
        positions = self._positions()
        lifted = positions[:, 2] > self._heights + LIFTED
        self.held, self.lifted = self._named(held), self._named(lifted)
        if self.first == NONE and (held | lifted).any():
            away = np.linalg.norm(positions - self._arm.position, axis=1)
            self.first = self.names[int(np.where(held | lifted, away, np.inf).argmin())]

    def _positions(self) -> np.ndarray:
        return self._data.xpos[list(self._bodies.values())].copy()

    def _named(self, which: np.ndarray) -> tuple[str, ...]:
        return tuple(name for name, yes in zip(self.names, which, strict=True) if yes)
