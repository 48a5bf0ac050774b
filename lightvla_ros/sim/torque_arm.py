"""LIBERO's Panda with joint torques, for controllers that replace robosuite's."""

from __future__ import annotations

import mujoco
import numpy as np

from lightvla_ros.policy.poses import Pose
from lightvla_ros.sim.franka_hand import FrankaHand
from lightvla_ros.sim.libero_env import LiberoEnv


class TorqueArm:
    """Runs a controller and the physics at the 500 Hz of the simulation.

    It begins as the environment is now; make a new one after each reset.

    :param env: Environment that was reset. Its own :meth:`LiberoEnv.step` is not used then.
    :ivar hand: The hand, at the speed of a real one.
    """

    def __init__(self, env: LiberoEnv) -> None:
        self._env = env
        simulation = env.simulation
        robot = simulation.robots[0]
        self._model = simulation.sim.model._model
        self._data = simulation.sim.data._data
        self._period = float(simulation.model_timestep)
        self._joints = np.array(robot._ref_joint_pos_indexes)
        self._dofs = np.array(robot._ref_joint_vel_indexes)
        self._motors = np.array(robot._ref_joint_actuator_indexes)
        self._site = robot.eef_site_id
        self._torque_limits = robot.torque_limits
        self._angle_limits = self._model.jnt_range[robot._ref_joint_indexes].T
        self.hand = FrankaHand(simulation)

    @property
    def pose(self) -> Pose:
        """Of the end effector, as :meth:`LiberoEnv.state` reads it, after the newest forward."""
        state = self._env.state()
        return Pose(state.position, state.quaternion)

    def run(self, seconds: float) -> bool:
        """Run controller and physics; return whether the task is solved."""
        simulation = self._env.simulation
        for _ in range(round(seconds / self._period)):
            simulation.sim.forward()
            self._data.ctrl[self._motors] = self._next_torque()
            self.hand.advance(self._period)
            simulation.sim.step()
        simulation.cur_time += seconds
        return self._env.solved

    def refresh(self) -> None:
        """Compute the poses of now: the physics end a step with those of its beginning."""
        self._env.simulation.sim.forward()

    def _next_torque(self) -> np.ndarray:
        """Return the torques of the joints [Nm] for the next step of the simulation."""
        raise NotImplementedError

    def _jacobian(self, data: mujoco.MjData | None = None) -> np.ndarray:
        """Return the Jacobian of the grip site [6, 7]: translation, then rotation.

        :param data: Of which state; by default of the simulation's.
        """
        jacobian = np.zeros((2, 3, self._model.nv))
        mujoco.mj_jacSite(self._model, data or self._data, *jacobian, self._site)
        return jacobian.reshape(6, -1)[:, self._dofs]

    def _mass(self) -> np.ndarray:
        """Return the mass matrix of the joints [7, 7]."""
        mass = np.zeros((self._model.nv, self._model.nv))
        mujoco.mj_fullM(self._model, self._data, mass)
        return mass[np.ix_(self._dofs, self._dofs)]
