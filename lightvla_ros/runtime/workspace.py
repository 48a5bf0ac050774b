"""Where the end effector may be: a box without keep-out boxes, and a cone around one direction.

The cone limits the tilt, the angle between the z axis of the end effector and its nominal
direction; turns about the nominal direction are free.
"""

from __future__ import annotations

import math

import numpy as np

from lightvla_ros.policy.poses import Pose, cross, length, product, quaternion_of, rotated
from lightvla_ros.runtime.safety_limits import SafetyLimits

TOOL_AXIS = np.array([0.0, 0.0, 1.0])
ROUNDING = 1e-9  # m and rad

# A path of length L [rad] turns the tool's axis by its linear part, up to L^2 / 2.
CONE_CURVATURE = 0.5


class Workspace:
    """The poses that may be commanded, in the base frame."""

    def __init__(self, limits: SafetyLimits) -> None:
        self._low, self._high = np.array(limits.box_min), np.array(limits.box_max)
        boxes = np.array(limits.keep_out, dtype=np.float64).reshape(-1, 6)
        self._out_low, self._out_high = boxes[:, :3], boxes[:, 3:]
        self._nominal = np.array(limits.approach_axis) / math.hypot(*limits.approach_axis)
        self._max_tilt = limits.max_tilt
        self._sides = np.concatenate([np.eye(3), -np.eye(3)])

    def tilt(self, quaternion: np.ndarray) -> float:
        """Return the angle between the tool's axis and its nominal direction [rad]."""
        axis = rotated(quaternion, TOOL_AXIS)
        normal = cross(axis, self._nominal)
        return math.atan2(length(normal), axis @ self._nominal)

    def violation(self, pose: Pose, tolerance: tuple[float, float] = (ROUNDING, ROUNDING)) -> str:
        """Return the code of the first bound that a pose violates; empty for a pose inside.

        :param tolerance: How far outside is still accepted [m], [rad].
        """
        position = pose.position
        outside = np.maximum(self._low - position, position - self._high)
        if outside.max() > tolerance[0]:
            return 'outside_box'
        if len(self._out_low) and self._depths(position).max() > tolerance[0]:
            return 'keep_out'
        if self.tilt(pose.quaternion) > self._max_tilt + tolerance[1]:
            return 'outside_cone'
        return ''

    def nearest(self, pose: Pose) -> Pose | None:
        """Return the nearest pose inside; None if keep-out boxes leave no near one."""
        position = np.clip(pose.position, self._low, self._high)
        if len(self._out_low) and self._depths(position).max() > 0:
            found = self._pushed_out(position)
            if found is None:
                return None
            position = found
        return Pose(position, self._untilted(pose.quaternion))

    def walls(self, position: np.ndarray, aim: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return half-spaces that contain a position and an aim, and nothing that is forbidden.

        For each keep-out box it is the side of the box from which both are farthest.

        :param aim: Relative to the position, like the result.
        :returns: Normals [M, 3] and distances [M], as ``StoppingPlan.redirect`` takes them.
        """
        normals = self._sides
        distances = np.concatenate([self._high - position, position - self._low])
        if len(self._out_low):
            # below the lower sides, then above the upper sides of each box
            room = np.concatenate([self._out_low - position, position - self._out_high], axis=1)
            chosen = np.minimum(room, room - self._sides @ aim).argmax(1)
            normals = np.concatenate([normals, self._sides[chosen]])
            distances = np.append(distances, room[np.arange(len(room)), chosen])
        return normals, distances

    def cone_walls(self, quaternion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the cone as a half-space of rotation vectors; needs :data:`CONE_CURVATURE`.

        The tool's axis z becomes z + turn x z + r, with r not longer than L^2 / 2 after a path of
        length L. So its cosine with the nominal direction n is at least that of the largest tilt
        if (n x z) . turn <= n . z - cos(max_tilt) - L^2 / 2.
        """
        axis = rotated(quaternion, TOOL_AXIS)
        room = float(axis @ self._nominal) - math.cos(self._max_tilt)
        return cross(self._nominal, axis)[None], np.array([room])

    def _depths(self, position: np.ndarray) -> np.ndarray:
        """Return how deep a position is inside each keep-out box [m]; negative outside."""
        return np.minimum(position - self._out_low, self._out_high - position).min(1)

    def _pushed_out(self, position: np.ndarray) -> np.ndarray | None:
        """Return the nearest point on a side of a keep-out box that is allowed."""
        found = []
        for low, high in zip(self._out_low, self._out_high, strict=True):
            for axis in range(3):
                for side in (low, high):
                    point = position.copy()
                    point[axis] = side[axis]
                    inside = (point >= self._low).all() and (point <= self._high).all()
                    if inside and self._depths(point).max() <= 0:
                        found.append(point)
        return min(found, key=lambda point: length(point - position), default=None)

    def _untilted(self, quaternion: np.ndarray) -> np.ndarray:
        """Return an orientation, turned back into the cone on the shortest way."""
        excess = self.tilt(quaternion) - self._max_tilt
        if excess <= 0:
            return quaternion
        axis = rotated(quaternion, TOOL_AXIS)
        turn = cross(axis, self._nominal)
        if length(turn) < ROUNDING:  # it points the opposite way, and every way back is as short
            turn = cross(self._nominal, self._sides[int(abs(self._nominal).argmin())])
        return product(quaternion_of(turn * (excess / length(turn))), quaternion)
