"""Poses in the base frame, and the little algebra of rotations that executing a chunk needs.

A rotation acts from the left, as in ``ActionChunk.msg``: R' = Exp(turn) R. ``policy/actions.py``
converts the rotations of a whole chunk at once; for a single one, plain numbers are much faster,
and the safety filter converts several before every publication.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

UNIT_TOLERANCE = 1e-3  # largest distance of a quaternion's length from 1


class Pose(NamedTuple):
    """A pose of the end effector.

    :param position: float64 [3], metres.
    :param quaternion: float64 [4], unit, x y z w; its sign has no meaning.
    """

    position: np.ndarray
    quaternion: np.ndarray


def is_pose(pose: Pose) -> bool:
    """Return whether a pose is three finite numbers and a unit quaternion."""
    position, quaternion = np.asarray(pose.position), np.asarray(pose.quaternion)
    return (
        position.shape == (3,)
        and quaternion.shape == (4,)
        and bool(np.isfinite(position).all())
        and abs(length(quaternion) - 1) <= UNIT_TOLERANCE  # False for NaN
    )


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the cross product of two vectors [3]; numpy's takes 20 times as long."""
    ax, ay, az = a.tolist()
    bx, by, bz = b.tolist()
    return np.array([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])


def product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the rotation ``right`` followed by ``left``; quaternions x y z w [4], unit."""
    return np.array(_product(left.tolist(), right.tolist()))


def _product(left: list[float], right: list[float]) -> list[float]:
    ax, ay, az, aw = left
    bx, by, bz, bw = right
    x = aw * bx + ax * bw + ay * bz - az * by
    y = aw * by - ax * bz + ay * bw + az * bx
    z = aw * bz + ax * by - ay * bx + az * bw
    w = aw * bw - ax * bx - ay * by - az * bz
    size = math.sqrt(x * x + y * y + z * z + w * w)
    return [x / size, y / size, z / size, w / size]


def rotated(quaternion: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Return a vector [3] turned by a unit quaternion x y z w."""
    axis, w = quaternion[:3], quaternion[3]
    twice = 2 * cross(axis, vector)
    return vector + w * twice + cross(axis, twice)


def turn_between(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the rotation vector [3], at most pi long, with ``end`` = Exp(vector) ``start``."""
    x, y, z, w = start.tolist()
    x, y, z, w = _product(end.tolist(), [-x, -y, -z, w])
    sine = math.sqrt(x * x + y * y + z * z)
    scale = 2 * math.atan2(sine, abs(w)) / sine if sine > 1e-12 else 2.0
    scale = math.copysign(scale, w)
    return np.array([scale * x, scale * y, scale * z])


def quaternion_of(turn: np.ndarray) -> np.ndarray:
    """Return the unit quaternion of a rotation vector [3]."""
    angle = length(turn)
    scale = math.sin(angle / 2) / angle if angle > 1e-12 else 0.5
    x, y, z = turn.tolist()
    return np.array([scale * x, scale * y, scale * z, math.cos(angle / 2)])


def moved(pose: Pose, translation: np.ndarray, turn: np.ndarray) -> Pose:
    """Return a pose after a translation [m] and a rotation vector [rad], both in the base frame."""
    return Pose(pose.position + translation, product(quaternion_of(turn), pose.quaternion))


def difference(start: Pose, end: Pose) -> tuple[np.ndarray, np.ndarray]:
    """Return the translation and the rotation vector that move ``start`` to ``end``."""
    return end.position - start.position, turn_between(start.quaternion, end.quaternion)


def length(vector: np.ndarray) -> float:
    """Return the length of a vector."""
    return math.sqrt(vector @ vector)


def shortened(vector: np.ndarray, longest: float) -> np.ndarray:
    """Return a vector of the same direction that is at most this long."""
    whole = length(vector)
    return vector if whole <= longest else vector * (longest / whole)
