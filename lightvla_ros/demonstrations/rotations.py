"""Rotations of many rows at once: the forms of recordings, and what steps are made of.

Quaternions are x y z w. A step's rotation acts from the left: R' = Exp(turn) R.
"""

from __future__ import annotations

import numpy as np

from lightvla_ros.errors import DemonstrationError
from lightvla_ros.policy.actions import axis_angle_from_quaternion, quaternion_from_axis_angle

UNIT_TOLERANCE = 1e-2  # of a quaternion's length, for recordings in few digits


def quaternions(values: np.ndarray, form: str) -> np.ndarray:
    """Convert a recording's rotations to unit quaternions.

    :param values: [N, 3 or 4], in radians where they are angles.
    :param form: One of ``mapping.ROTATIONS``; ``euler_xyz`` is roll, pitch, yaw about fixed axes.
    :returns: float64 [N, 4].
    :raises DemonstrationError: When a quaternion is not of length 1.
    """
    if form == 'axis_angle':
        return quaternion_from_axis_angle(values)
    if form == 'euler_xyz':
        roll, pitch, yaw = (
            quaternion_from_axis_angle(np.outer(values[:, axis], np.eye(3)[axis]))
            for axis in range(3)
        )
        return product(yaw, product(pitch, roll))
    if form == 'quaternion_wxyz':
        values = np.roll(values, -1, axis=1)
    lengths = np.linalg.norm(values, axis=1)
    far = np.flatnonzero(np.abs(lengths - 1) > UNIT_TOLERANCE)
    if len(far):
        raise DemonstrationError(
            f'row {far[0]}: a quaternion of length {lengths[far[0]]:.3g}; check its places and form'
        )
    return values / lengths[:, None]


def product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the rotations ``right`` followed by ``left``, [N, 4]."""
    a, b = left[:, :3], right[:, :3]
    aw, bw = left[:, 3:], right[:, 3:]
    vector = aw * b + bw * a + np.cross(a, b)
    return np.concatenate([vector, aw * bw - (a * b).sum(axis=1, keepdims=True)], axis=1)


def turned(rotations: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return vectors [N, 3] turned by quaternions [N, 4]."""
    axis, w = rotations[:, :3], rotations[:, 3:]
    twice = 2 * np.cross(axis, vectors)
    return vectors + w * twice + np.cross(axis, twice)


def turns_between(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the rotation vectors [N, 3], at most pi long, with ``end`` = Exp(turn) ``start``."""
    return axis_angle_from_quaternion(product(end, start * [-1, -1, -1, 1]))
