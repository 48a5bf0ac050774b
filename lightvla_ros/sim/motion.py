"""How far and how smoothly the arm moved in an episode.

Success alone does not say what an arm does on its way (arXiv 2603.19131, 2606.28529).
"""

from __future__ import annotations

import numpy as np

from lightvla_ros.contract.libero import CONTROL_PERIOD


class MotionLog:
    """The arm's poses at the start and after every control period."""

    def __init__(self) -> None:
        self._positions: list[np.ndarray] = []
        self._joints: list[np.ndarray] = []

    def add(self, position: np.ndarray, joints: np.ndarray) -> None:
        """Note a pose.

        :param position: Of the end effector [3], metres.
        :param joints: Of the arm [7], radians.
        """
        self._positions.append(np.array(position))
        self._joints.append(np.array(joints))

    def figures(self) -> dict[str, float]:
        """Return what was measured.

        :returns: ``hand_path``: length of the end effector's path [m]. ``joint_travel``: sum of the
            ways of all joints [rad]. ``jerk``: root mean square of the end effector's jerk, by
            third differences at the control rate [m/s^3]; 0 in fewer than three periods.
        """
        positions, joints = np.array(self._positions), np.array(self._joints)
        thirds = np.diff(positions, 3, axis=0) / CONTROL_PERIOD**3
        jerk = float(np.sqrt((thirds**2).sum(1).mean())) if len(thirds) else 0.0
        return {
            'hand_path': round(float(np.linalg.norm(np.diff(positions, axis=0), axis=1).sum()), 4),
            'joint_travel': round(float(np.abs(np.diff(joints, axis=0)).sum()), 4),
            'jerk': round(jerk, 3),
        }
