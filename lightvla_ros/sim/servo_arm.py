"""LIBERO's Panda under MoveIt Servo: what Servo takes, what it refuses, and how fast it moves.

Servo goes where it is sent, where crisp_controllers and OSC_POSE only pull. The rules are those of
moveit_servo (moveit2 8fcb5d2, its sources read and not copied), with its default parameters:

- Commands are dropped before a command type was chosen, and those of another type as well.
- A command that is ``command_timeout`` old halts the arm smoothly.
- A command in another frame than the planning frame is invalid. The real Servo asks tf2 first; here
  nothing connects the frames.
- Speeds are cut at ``linear`` and ``rotational``, in their direction. A pose is approached as fast
  as that, and no faster.
- Near a singularity it slows down, in it and at the bound of a joint it halts: the status says so.

Joint speeds come from the pseudo-inverse of the Jacobian where the arm was last sent. They are
damped, limited to those of a Panda, and smoothed, which stands for Servo's smoothing plugin. A
controller with the arm's own mass matrix follows them at the 500 Hz of the simulation, as the
joint controller of a real arm would. Nothing checks for collisions, so codes 4 and 5 never come.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import mujoco
import numpy as np

from lightvla_ros.policy.poses import Pose, difference, is_pose, length, shortened
from lightvla_ros.sim.libero_env import LiberoEnv
from lightvla_ros.sim.torque_arm import TorqueArm

PERIOD = 0.01  # s, Servo's publish_period
SMOOTHING = 0.5  # part of a change of speed that one period brings
DAMPING = 0.01  # of the pseudo-inverse; it costs 1 % at a singular value of 0.1
REACHED = (0.001, 0.01)  # m and rad; a pose that is nearer is reached
TRIAL = 0.01  # length of the step that tells on which side a singularity lies
STIFFNESS = 900.0  # 1/s^2, of the joint controller, with critical damping
JOINT_SPEEDS = np.array([2.175] * 4 + [2.61] * 3)  # rad/s, a Panda's


class CommandType(IntEnum):
    """Of moveit_msgs/srv/ServoCommandType."""

    JOINT_JOG = 0
    TWIST = 1
    POSE = 2


class Status(IntEnum):
    """Codes of moveit_msgs/msg/ServoStatus."""

    INVALID = -1
    FINE = 0
    APPROACHES_SINGULARITY = 1
    SINGULARITY = 2
    LEAVES_SINGULARITY = 3
    JOINT_BOUND = 6


@dataclass(frozen=True)
class ServoSettings:
    """Servo's parameters, by default as in its own file.

    :param linear: ``scale.linear`` [m/s].
    :param rotational: ``scale.rotational`` [rad/s].
    :param command_timeout: ``incoming_command_timeout`` [s].
    :param slow_at: ``lower_singularity_threshold``, a condition number of the Jacobian.
    :param halt_at: ``hard_stop_singularity_threshold``.
    :param leaving: ``leaving_singularity_threshold_multiplier``.
    :param joint_margin: Distance from the bound of a joint at which the arm halts [rad].
    """

    linear: float = 0.4
    rotational: float = 0.8
    command_timeout: float = 0.1
    slow_at: float = 17.0
    halt_at: float = 30.0
    leaving: float = 2.0
    joint_margin: float = 0.1


@dataclass(frozen=True)
class ServoCommand:
    """A command as it came.

    :param value: float [6] m/s and rad/s about the end effector's origin, or the pose to reach.
    :param frame: The frame in which it is meant.
    :param stamp: Its time [s].
    """

    value: np.ndarray | Pose
    frame: str
    stamp: float


class ServoArm(TorqueArm):
    """Servo and the controller behind it; nothing moves before :meth:`choose`.

    :param env: Environment that was reset.
    :param frame: The planning frame: the name of the simulator's world.
    :ivar kind: The command type; None before it was chosen.
    :ivar paused: Whether all commands are dropped.
    :ivar status: Of the newest command that was not dropped.
    """

    def __init__(
        self, env: LiberoEnv, frame: str, settings: ServoSettings = ServoSettings()
    ) -> None:
        super().__init__(env)
        self.refresh()
        self._frame = frame
        self._settings = settings
        self._scratch = mujoco.MjData(self._model)
        robot = env.simulation.robots[0]
        self._hand_body = self._model.body(robot.robot_model.eef_name).id
        self.kind: CommandType | None = None
        self.paused = False
        self._command: ServoCommand | None = None
        self.status = Status.FINE
        self._stay()

    def choose(self, kind: int) -> bool:
        """Choose the command type; return whether there is such a one."""
        if kind not in tuple(CommandType):
            return False
        self.kind = CommandType(kind)
        self._command = None
        return True

    def pause(self, paused: bool) -> None:
        """Stop where the arm is, or go on from where it is."""
        self.paused = paused
        self._command = None
        self._stay()

    def take(self, kind: CommandType, command: ServoCommand) -> bool:
        """Take a command; return False when it is dropped, as no command type fits it."""
        if kind is not self.kind or self.paused:
            return False
        self._command = command
        return True

    def servo(self, now: float) -> None:
        """Turn the newest command into joint speeds. Call it every 10 ms.

        :param now: Seconds of the clock that stamps the commands.
        """
        if self.paused:
            return
        command, wanted = self._command, np.zeros(len(self._joints))
        if command is not None and not now - command.stamp < self._settings.command_timeout:
            self._command = command = None
        if command is not None:
            self.status, wanted = self._joint_speeds(command)
        wanted = self._speed + SMOOTHING * (wanted - self._speed)
        if self._at_bound(wanted):  # also when it only halts: the smoothing moves on
            wanted = np.zeros(len(self._joints))
        self._acceleration = (wanted - self._speed) / PERIOD

    def _joint_speeds(self, command: ServoCommand) -> tuple[Status, np.ndarray]:
        still = np.zeros(len(self._joints))
        pose, jacobian = self._where(self._place)
        twist = self._twist(command, pose)
        if twist is None:
            return Status.INVALID, still
        if not twist.any():
            return Status.FINE, still
        status, scale = self._singularity(jacobian, twist)
        square = jacobian @ jacobian.T + DAMPING**2 * np.eye(6)
        speed = scale * (jacobian.T @ np.linalg.solve(square, twist))
        speed /= max(1.0, float((np.abs(speed) / JOINT_SPEEDS).max()))
        if self._at_bound(speed):
            return Status.JOINT_BOUND, still
        return status, speed

    def _twist(self, command: ServoCommand, pose: Pose) -> np.ndarray | None:
        """Return the speed [6] that a command asks for, within the scale; None if it is invalid."""
        value, settings = command.value, self._settings
        if command.frame != self._frame:
            return None
        if isinstance(value, Pose):
            if not is_pose(value):
                return None
            shift, turn = difference(pose, value)
            shift = shift / PERIOD if length(shift) > REACHED[0] else np.zeros(3)
            turn = turn / PERIOD if length(turn) > REACHED[1] else np.zeros(3)
        elif not np.isfinite(value).all():
            return None
        else:
            shift, turn = value[:3], value[3:]
        return np.concatenate(
            [shortened(shift, settings.linear), shortened(turn, settings.rotational)]
        )

    def _singularity(self, jacobian: np.ndarray, twist: np.ndarray) -> tuple[Status, float]:
        """Return what the status says of a singularity, and the part of the speed that is left."""
        settings = self._settings
        vectors, values, joints = np.linalg.svd(jacobian, full_matrices=False)
        condition = values[0] / values[-1]
        if condition <= settings.slow_at:
            return Status.FINE, 1.0
        if condition >= settings.halt_at:
            return Status.SINGULARITY, 0.0
        towards, step = vectors[:, -1], joints[-1] / values[-1] * TRIAL
        beyond = np.linalg.svd(self._where(self._place + step)[1], compute_uv=False)
        if beyond[0] / beyond[-1] <= condition:
            towards = -towards
        approaches = bool(towards @ twist > 0)
        room = (settings.halt_at - settings.slow_at) * (1 if approaches else settings.leaving)
        status = Status.APPROACHES_SINGULARITY if approaches else Status.LEAVES_SINGULARITY
        return status, 1 - (condition - settings.slow_at) / room

    def _at_bound(self, speed: np.ndarray) -> bool:
        place, margin = self._place + PERIOD * speed, self._settings.joint_margin
        lower, upper = self._angle_limits
        low, high = place < lower + margin, place > upper - margin
        return bool((low & (speed < 0) | high & (speed > 0)).any())

    def _where(self, place: np.ndarray) -> tuple[Pose, np.ndarray]:
        """Return the pose of the end effector and the Jacobian [6, 7] with the joints there."""
        scratch = self._scratch
        scratch.qpos[:] = self._data.qpos
        scratch.qpos[self._joints] = place
        mujoco.mj_kinematics(self._model, scratch)
        mujoco.mj_comPos(self._model, scratch)
        w, x, y, z = scratch.xquat[self._hand_body]
        pose = Pose(scratch.site_xpos[self._site].copy(), np.array([x, y, z, w]))
        return pose, self._jacobian(scratch)

    def _stay(self) -> None:
        self._place = self._data.qpos[self._joints].copy()  # where the joints are sent [rad]
        self._speed = np.zeros(len(self._joints))
        self._acceleration = np.zeros(len(self._joints))

    def _next_torque(self) -> np.ndarray:
        self._speed = self._speed + self._acceleration * self._period
        self._place = self._place + self._speed * self._period
        away = self._place - self._data.qpos[self._joints]
        behind = self._speed - self._data.qvel[self._dofs]
        wanted = self._acceleration + STIFFNESS * away + 2 * np.sqrt(STIFFNESS) * behind
        torque = self._mass() @ wanted + self._data.qfrc_bias[self._dofs]
        return np.clip(torque, *self._torque_limits)
