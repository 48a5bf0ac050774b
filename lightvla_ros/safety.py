"""Limits on a chunk before it may leave the node.

Software limits make mistakes smaller. They are not a safety function: that is the robot's own.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lightvla_ros.actions import (
    Chunk,
    axis_angle_from_quaternion,
    quaternion_from_axis_angle,
)
from lightvla_ros.errors import PolicyOutputError

# A step this many times over a limit is no overshoot but a broken model or wrong statistics.
REJECT_FACTOR = 3.0


def limit_chunk(chunk: Chunk, max_translation: float, max_rotation: float) -> tuple[Chunk, bool]:
    """Shorten steps that are longer than the limits, keeping their direction.

    :param max_translation: Longest step [m].
    :param max_rotation: Largest turn of a step [rad].
    :returns: The chunk, and whether a step was shortened.
    :raises PolicyOutputError: When a step is over a limit by more than :data:`REJECT_FACTOR`.
    """
    turns = axis_angle_from_quaternion(chunk.rotations)
    lengths = np.linalg.norm(chunk.translations, axis=1)
    angles = np.linalg.norm(turns, axis=1)
    for what, values, limit, unit in (
        ('translation', lengths, max_translation, 'm'),
        ('rotation', angles, max_rotation, 'rad'),
    ):
        if len(values) and values.max() > REJECT_FACTOR * limit:
            raise PolicyOutputError(
                f'step {values.argmax()} has a {what} of {values.max():.3g} {unit}, more than '
                f'{REJECT_FACTOR:g} times the limit of {limit:.3g} {unit}'
            )
    if not ((lengths > max_translation).any() or (angles > max_rotation).any()):
        return chunk, False
    shorter = np.minimum(1.0, max_translation / np.maximum(lengths, 1e-12))[:, None]
    smaller = np.minimum(1.0, max_rotation / np.maximum(angles, 1e-12))[:, None]
    limited = replace(
        chunk,
        translations=chunk.translations * shorter,
        rotations=quaternion_from_axis_angle(turns * smaller),
    )
    return limited, True
