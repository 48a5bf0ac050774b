"""The Panda's end effector: where it is, and P-control towards where it should be."""

from __future__ import annotations

import mujoco
import numpy as np

from lightvla_ros.contract.libero import ROTATION_SCALE, TRANSLATION_SCALE


class Arm:
    """The Panda's end effector, read from the simulator, and control towards a pose."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        self._data = data
        self.site = _only(model, mujoco.mjtObj.mjOBJ_SITE, model.nsite, 'grip_site')
        self._left = _only(model, mujoco.mjtObj.mjOBJ_BODY, model.nbody, 'leftfinger')
        self._right = _only(model, mujoco.mjtObj.mjOBJ_BODY, model.nbody, 'rightfinger')

    @property
    def position(self) -> np.ndarray:
        """Of the grip site [3], metres."""
        return self._data.site_xpos[self.site].copy()

    @property
    def finger_axis(self) -> np.ndarray:
        """From the right to the left finger [3], metres."""
        return self._data.xpos[self._left] - self._data.xpos[self._right]

    @property
    def yaw(self) -> float:
        """Angle of the axis along which the fingers open."""
        axis = self.finger_axis
        return float(np.arctan2(axis[1], axis[0]))

    def nearest_yaw(self, yaw: float) -> float:
        """Return the one of two equal grasps (modulo pi) that is nearer to the hand."""
        return self.yaw + ((yaw - self.yaw + np.pi / 2) % np.pi - np.pi / 2)

    def action_towards(self, position: np.ndarray, yaw: float, gripper: float) -> np.ndarray:
        """P-control to a pose with the approach axis pointing down -> OSC_POSE action [7]."""
        approach = self._data.site_xmat[self.site].reshape(3, 3)[:, 2]
        turn = np.cross(approach, [0.0, 0.0, -1.0])
        turn[2] += (yaw - self.yaw + np.pi) % (2 * np.pi) - np.pi
        move = 1.6 * (position - self.position) / TRANSLATION_SCALE
        return np.clip(np.concatenate([move, turn / ROTATION_SCALE, [gripper]]), -1, 1)


def _only(model: mujoco.MjModel, kind: mujoco.mjtObj, count: int, suffix: str) -> int:
    """Find the gripper's part with this name; robosuite adds prefixes."""
    for index in range(count):
        name = mujoco.mj_id2name(model, kind, index) or ''
        if name.startswith('gripper0') and name.endswith(suffix):
            return index
    raise LookupError(f'the model has no gripper part {suffix!r}')
