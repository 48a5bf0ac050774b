"""Calibrated cameras: points in the robot's base frame -> places in the picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lightvla_ros.errors import ConfigError
from lightvla_ros.policy.poses import UNIT_TOLERANCE, rotated
from lightvla_ros.typed_yaml import build, read_yaml

NEAREST = 0.01  # m in front of the lens; nearer points have no place in the picture


@dataclass(frozen=True)
class Calibration:
    """Where a camera stands, and how it projects; lens distortion is not known to it.

    :param width: Of the pictures that it was calibrated with [px].
    :param height: Of the same pictures [px].
    :param matrix: ``k`` of its ``sensor_msgs/CameraInfo``: fx, 0, cx, 0, fy, cy, 0, 0, 1 [px].
    :param position: Of the lens in the base frame [m].
    :param quaternion: Of the optical frame (x right, y down, z forward) in the base frame; unit,
        x y z w.
    :raises ConfigError: When a value is impossible; it names the field.
    """

    width: int
    height: int
    matrix: tuple[float, ...]
    position: tuple[float, ...]
    quaternion: tuple[float, ...]

    def __post_init__(self) -> None:
        if min(self.width, self.height) < 1:
            raise ConfigError(f'width and height are {self.width} and {self.height}; both are >= 1')
        for name, size in (('matrix', 9), ('position', 3), ('quaternion', 4)):
            numbers = np.array(getattr(self, name))
            if numbers.shape != (size,) or not np.isfinite(numbers).all():
                raise ConfigError(f'{name} must be {size} finite numbers')
        if min(self.matrix[0], self.matrix[4]) <= 0:
            raise ConfigError('matrix: its focal lengths, numbers 1 and 5, must be above 0')
        if abs(np.linalg.norm(self.quaternion) - 1) > UNIT_TOLERANCE:
            raise ConfigError(f'quaternion {list(self.quaternion)} is not a unit quaternion')

    def places(self, points: np.ndarray) -> list[tuple[float, float] | None]:
        """Project points.

        :param points: [N, 3], in the base frame [m].
        :returns: From the left and from the top, as fractions of the picture's width and height;
            None for a point that is not in front of the camera. Places may lie outside of 0 to 1.
        """
        back = np.array([-1, -1, -1, 1]) * self.quaternion
        fx, _, cx, _, fy, cy = self.matrix[:6]
        found: list[tuple[float, float] | None] = []
        for point in points:
            x, y, z = rotated(back, point - np.array(self.position)).tolist()
            if z < NEAREST:
                found.append(None)
                continue
            found.append(((fx * x / z + cx) / self.width, (fy * y / z + cy) / self.height))
        return found


def load_calibrations(path: Path) -> dict[str, Calibration]:
    """Read a YAML file with the calibration of each camera, by the camera's name.

    :raises ConfigError: When the file cannot be read, or a value is missing or impossible; it
        names the file and the field.
    """
    document = read_yaml(path)
    if not isinstance(document, dict):
        raise ConfigError(f'{path}: it must give each camera a calibration')
    found = {}
    for name, values in document.items():
        try:
            found[str(name)] = build(Calibration, values, f'{name}.')
        except ConfigError as error:
            text = str(error)
            where = '' if text.startswith(f'{name}') else f'{name}: '
            raise ConfigError(f'{path}: {where}{text}') from None
    return found
