"""The Franka hand in LIBERO, at the speed of a real one: LIBERO's own is twice as fast."""

from __future__ import annotations

from typing import Any

import numpy as np

OPEN_WIDTH = 0.08  # m between the fingers
RESTS = 0.002  # m/s of a finger
FINGER_REACH = 0.04  # m; robosuite's set-point of a finger is -1 to 1 for 0 to this


class FrankaHand:
    """Moves the fingers' set-points at a speed; :meth:`advance` belongs to every step of physics.

    :param simulation: Robosuite's environment, which has been reset.
    """

    def __init__(self, simulation: Any) -> None:
        robot = simulation.robots[0]
        self._gripper = robot.gripper
        self._data = simulation.sim.data._data
        self._actuators = np.array(robot._ref_joint_gripper_actuator_indexes)
        self._places = np.array(robot._ref_gripper_joint_pos_indexes)
        self._speeds = np.array(robot._ref_gripper_joint_vel_indexes)
        low, high = simulation.sim.model._model.actuator_ctrlrange[self._actuators].T
        self._middle, self._half = (low + high) / 2, (high - low) / 2
        self._goal = np.array(self._gripper.current_action)
        self._step = 0.0

    def move(self, width: float, speed: float) -> None:
        """Send the fingers to a width between them [m], at a speed of the width [m/s].

        They start from where they are: when they hold something, their set-points are farther.
        """
        places = self._data.qpos[self._places]
        self._gripper.current_action = np.clip((places - self._middle) / self._half, -1, 1)
        place = width / FINGER_REACH - 1
        self._goal = np.clip(np.array([place, -place]), -1, 1)  # robosuite's second is negative
        self._step = speed / FINGER_REACH

    def halt(self) -> None:
        """Stop the fingers where they are sent now."""
        self._goal = np.array(self._gripper.current_action)

    def width(self) -> float:
        """Return the distance between the fingers [m]."""
        return float(np.abs(self._data.qpos[self._places]).sum())

    def rests(self) -> bool:
        """Return whether the fingers have come to rest."""
        return bool(np.abs(self._data.qvel[self._speeds]).max() <= RESTS)

    def advance(self, seconds: float) -> None:
        """Move the set-points for one step of physics."""
        now = np.array(self._gripper.current_action)
        most = self._step * seconds
        now += np.clip(self._goal - now, -most, most)
        self._gripper.current_action = now
        self._data.ctrl[self._actuators] = self._middle + self._half * now
