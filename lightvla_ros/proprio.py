"""Proprio: the robot's state as the policy was trained on it."""

from __future__ import annotations

import numpy as np

from lightvla_ros.contract import Proprio


def state_vector(
    spec: Proprio,
    position: np.ndarray | None = None,
    quaternion: np.ndarray | None = None,
    gripper_qpos: np.ndarray | None = None,
) -> np.ndarray:
    """Put the state vector together in the manifest's layout.

    :param position: End effector [m], [3].
    :param quaternion: End effector, unit, x y z w; its sign is kept (see below).
    :param gripper_qpos: The two finger joints [m], in robosuite's signs (the second is negative).
    :returns: float64 [S].
    :raises ValueError: When a part that the layout needs is missing, misshapen or not finite.
    """
    parts = {
        'ee_position': position,
        'ee_axis_angle': quaternion,
        'gripper_qpos': gripper_qpos,
    }
    sizes = {'ee_position': 3, 'ee_axis_angle': 4, 'gripper_qpos': 2}
    vector = []
    for name in spec.layout:
        part = parts[name]
        if part is None or np.shape(part) != (sizes[name],) or not np.isfinite(part).all():
            raise ValueError(f'{name} needs {sizes[name]} finite numbers, not {part}')
        vector.append(_axis_angle(part) if name == 'ee_axis_angle' else part)
    return np.concatenate(vector).astype(np.float64)


def normalise_proprio(state: np.ndarray | None, spec: Proprio | None) -> np.ndarray | None:
    """Map the state to [-1, 1] by its 1 % and 99 % quantiles.

    OpenVLA-OFT ``openvla_utils.py``, normalize_proprio (BOUNDS_Q99): clip(2 (x - q01) / (q99 - q01
    + 1e-8) - 1, -1, 1). The clipping is part of the published preprocessing.

    :param state: float64 [S].
    :returns: float32 [1, S]; None where the policy takes no proprio.
    :raises ValueError: When the state is missing, of another length, or not finite.
    """
    if spec is None:
        return None
    if state is None or np.shape(state) != (spec.size,) or not np.isfinite(state).all():
        raise ValueError(f'the policy needs a state of {spec.size} finite numbers, not {state}')
    q01, q99 = np.asarray(spec.q01), np.asarray(spec.q99)
    scaled = np.clip(2 * (state - q01) / (q99 - q01 + 1e-8) - 1, -1, 1)
    return scaled.astype(np.float32)[None]


def _axis_angle(quaternion: np.ndarray) -> np.ndarray:
    """Rotation vector as OpenVLA's LIBERO data has it (robosuite's quat2axisangle).

    The quaternion's sign is not normalised, so angles go up to 2 pi: policies were trained on that,
    and flipping the sign costs 14 to 40 points of success (vla-eval, common-pitfalls).
    """
    w = min(max(float(quaternion[3]), -1.0), 1.0)
    denominator = np.sqrt(1 - w * w)
    if denominator < 1e-8:
        return np.zeros(3)
    return np.asarray(quaternion[:3]) * 2 * np.arccos(w) / denominator
