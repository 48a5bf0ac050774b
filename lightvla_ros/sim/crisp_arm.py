"""LIBERO's Panda under the control law of crisp_controllers, instead of robosuite's OSC_POSE.

A policy that was trained on OSC_POSE should move a real arm as it moves the simulated one. The
controller for that on a real Franka is `crisp_controllers`_ in operational-space mode. This module
runs the law of its ``cartesian_controller.cpp`` (commit 8093548, read, not copied) on MuJoCo's own
Jacobian and mass matrix, at the 500 Hz of the simulation::

    tau = J^T M (K e - D J dq) + N (K_n (q_0 - q) - D_n dq) + limits + bias

M is the full 6 x 6 mass matrix of the end effector, where OSC_POSE uses one for translation and one
for rotation. It is damped as little as the real one (``DAMPED``), so it has next to no bound where
the elbow is straight: there the arm is thrown about (docs/how-to/fr3-crisp.md).

Like the real controller, this one keeps the last target for ever, limits the error of each axis,
the torque towards the posture and the change of each torque, and pushes each joint away from its
limits. ``bias`` is gravity and Coriolis, which the real robot compensates itself.

.. _crisp_controllers: https://github.com/utiasDSL/crisp_controllers
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lightvla_ros.policy.poses import Pose, difference
from lightvla_ros.sim.libero_env import LiberoEnv
from lightvla_ros.sim.torque_arm import TorqueArm

DAMPED = 1e-4  # of the singular values of the inverse mass
LIMIT_RANGE, LIMIT_TORQUE = 0.3, 5.0  # rad, Nm: how the controller keeps off a joint's limit


@dataclass(frozen=True)
class CrispSettings:
    """Parameters of the controller, by default those that equal OSC_POSE.

    :param stiffness: Of all six axes; with ``use_operational_space`` the unit is 1/s^2.
    :param damping_ratio: 1 is critical: D = 2 sqrt(K).
    :param clip_translation: ``task.error_clip`` of x, y and z [m].
    :param clip_rotation: ``task.error_clip`` of rx, ry and rz [rad].
    :param nullspace_stiffness: Towards the posture of activation [Nm/rad].
    :param nullspace_torque: Limit of the torque towards it [Nm].
    :param max_delta_torque: ``max_delta_tau``, per millisecond and joint [Nm].
    """

    stiffness: float = 150.0
    damping_ratio: float = 1.0
    clip_translation: float = 0.1
    clip_rotation: float = 1.0
    nullspace_stiffness: float = 10.0
    nullspace_torque: float = 5.0
    max_delta_torque: float = 1.0


class CrispArm(TorqueArm):
    """The controller, active from now on.

    :param env: Environment that was reset.
    """

    def __init__(self, env: LiberoEnv, settings: CrispSettings = CrispSettings()) -> None:
        super().__init__(env)
        self._settings = settings
        self._rest = self._data.qpos[self._joints].copy()
        self._torque = self._data.ctrl[self._motors].copy()
        self.set_target(self.pose)  # as the real one on activation

    def set_target(self, target: Pose) -> None:
        """Set the pose that the arm is pulled to, in the simulator's world, until the next call."""
        self._target = target

    def _next_torque(self) -> np.ndarray:
        settings, data = self._settings, self._data
        jacobian = self._jacobian()
        speed, angles = data.qvel[self._dofs], data.qpos[self._joints]
        mobility = jacobian @ np.linalg.inv(self._mass()) @ jacobian.T
        rows, sizes, columns = np.linalg.svd(mobility)
        mass = columns.T @ np.diag(sizes / (sizes**2 + DAMPED**2)) @ rows.T
        damping = 2 * settings.damping_ratio * np.sqrt(settings.stiffness)
        wanted = settings.stiffness * self._error() - damping * (jacobian @ speed)
        torque = jacobian.T @ (mass @ wanted)
        posture = settings.nullspace_stiffness * (self._rest - angles)
        posture -= 2 * np.sqrt(settings.nullspace_stiffness) * speed
        posture -= np.linalg.pinv(jacobian) @ (jacobian @ posture)
        torque += np.clip(posture, -settings.nullspace_torque, settings.nullspace_torque)
        lower, upper = self._angle_limits
        torque += LIMIT_TORQUE * np.clip(1 - (angles - lower) / LIMIT_RANGE, 0, 1)
        torque -= LIMIT_TORQUE * np.clip(1 - (upper - angles) / LIMIT_RANGE, 0, 1)
        torque += data.qfrc_bias[self._dofs]
        change = settings.max_delta_torque * self._period * 1e3
        torque = np.clip(torque, self._torque - change, self._torque + change)
        self._torque = np.clip(torque, *self._torque_limits)
        return self._torque

    def _error(self) -> np.ndarray:
        """Return the limited error [6]: metres, and a rotation vector in the base frame."""
        error = np.concatenate(difference(self.pose, self._target))
        clip = np.repeat([self._settings.clip_translation, self._settings.clip_rotation], 3)
        return np.clip(error, -clip, clip)
