"""Conversions: normalised numbers -> metres, quaternions, gripper opening; and back.

One step of a robosuite ``OSC_POSE`` action is 7 numbers: a translation and an axis-angle rotation
in units of the controller's output range, and the gripper. The rotation is applied from the left,
in the base frame: R' = Exp(rotation_scale * a[3:6]) R (robosuite ``osc.py``, set_goal_orientation).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lightvla_ros.contract import ACTION_SIZE, Action
from lightvla_ros.contract.libero import ROTATION_SCALE, TRANSLATION_SCALE
from lightvla_ros.errors import PolicyOutputError

# A step this many times over a limit indicates a broken model or wrong statistics.
REJECT_FACTOR = 3.0


@dataclass(frozen=True)
class Chunk:
    """Future end-effector steps, in the base frame.

    :param translations: float64 [N, 3], metres: p' = p + translation.
    :param rotations: float64 [N, 4], unit quaternions x y z w: R' = rotation * R.
    :param gripper: float64 [N], opening from 0 (closed) to 1 (open).
    :param period: Seconds per step.
    :param first_step: Index of this chunk's step 0 in the chunk that the model predicted.
    """

    translations: np.ndarray
    rotations: np.ndarray
    gripper: np.ndarray
    period: float
    first_step: int = 0

    def __len__(self) -> int:
        return len(self.translations)

    def without_head(self, steps: int) -> Chunk:
        """Return the chunk without its first steps, for instance those that are already past."""
        return Chunk(
            self.translations[steps:],
            self.rotations[steps:],
            self.gripper[steps:],
            self.period,
            self.first_step + steps,
        )


def unnormalise(actions: np.ndarray, spec: Action) -> np.ndarray:
    """Map the head's output to the units of the training data.

    OpenVLA-OFT ``modeling_prismatic.py``, ``_unnormalize_actions``: 0.5 (a + 1)(q99 - q01 + 1e-8)
    + q01 where the mask is set, unchanged elsewhere; computed in float64 as in OpenVLA-OFT.

    :param actions: [N, 7].
    :returns: float64 [N, 7].
    """
    actions = np.asarray(actions, dtype=np.float64)
    q01, q99 = np.asarray(spec.q01), np.asarray(spec.q99)
    return np.where(spec.mask, 0.5 * (actions + 1) * (q99 - q01 + 1e-8) + q01, actions)


def chunk_from_policy(actions: np.ndarray, spec: Action) -> Chunk:
    """Turn the head's normalised output [N, 7] into a chunk.

    The gripper's value is mapped so that ``gripper_closed`` is 0 and ``gripper_open`` is 1. A
    regression head overshoots both ends a little, so the opening is clipped to [0, 1], the whole
    range of the hand; this changes no motion.
    """
    actions = unnormalise(actions, spec)
    opening = (actions[:, 6] - spec.gripper_closed) / (spec.gripper_open - spec.gripper_closed)
    return Chunk(
        translations=actions[:, :3] * spec.translation_scale,
        rotations=quaternion_from_axis_angle(actions[:, 3:6] * spec.rotation_scale),
        gripper=np.clip(opening, 0.0, 1.0),
        period=spec.control_period,
    )


def chunk_from_osc(
    actions: np.ndarray,
    period: float,
    translation_scale: float = TRANSLATION_SCALE,
    rotation_scale: float = ROTATION_SCALE,
) -> Chunk:
    """Turn robosuite OSC_POSE actions [N, 7] (gripper -1 open, +1 close) into a chunk."""
    actions = np.asarray(actions, dtype=np.float64).reshape(-1, ACTION_SIZE)
    return Chunk(
        translations=actions[:, :3] * translation_scale,
        rotations=quaternion_from_axis_angle(actions[:, 3:6] * rotation_scale),
        gripper=(1 - actions[:, 6]) / 2,
        period=period,
    )


def osc_from_chunk(
    chunk: Chunk,
    translation_scale: float = TRANSLATION_SCALE,
    rotation_scale: float = ROTATION_SCALE,
) -> np.ndarray:
    """Turn a chunk back into robosuite OSC_POSE actions, the inverse of :func:`chunk_from_osc`.

    :returns: float64 [N, 7].
    """
    return np.concatenate(
        [
            chunk.translations / translation_scale,
            axis_angle_from_quaternion(chunk.rotations) / rotation_scale,
            1 - 2 * chunk.gripper[:, None],
        ],
        axis=1,
    )


def quaternion_from_axis_angle(vectors: np.ndarray) -> np.ndarray:
    """Rotation vectors [N, 3] in radians -> unit quaternions x y z w [N, 4]."""
    vectors = np.asarray(vectors, dtype=np.float64)
    half = np.linalg.norm(vectors, axis=-1, keepdims=True) / 2
    # sin(h)/(2h) through numpy's sinc, which is exact at 0
    return np.concatenate([vectors / 2 * np.sinc(half / np.pi), np.cos(half)], axis=-1)


def axis_angle_from_quaternion(quaternions: np.ndarray) -> np.ndarray:
    """Convert unit quaternions x y z w [N, 4] -> rotation vectors [N, 3], angle 0 to pi."""
    quaternions = np.asarray(quaternions, dtype=np.float64)
    # q and -q are the same rotation; w >= 0 selects the shorter one
    quaternions = np.where(quaternions[..., 3:] < 0, -quaternions, quaternions)
    xyz, w = quaternions[..., :3], quaternions[..., 3:]
    half = np.arctan2(np.linalg.norm(xyz, axis=-1, keepdims=True), w)
    return 2 * xyz / np.sinc(half / np.pi)


def hold(period: float) -> Chunk:
    """Return a chunk without steps, which means: hold still."""
    return Chunk(np.zeros((0, 3)), np.zeros((0, 4)), np.zeros(0), period)


def limit_chunk(chunk: Chunk, max_translation: float, max_rotation: float) -> tuple[Chunk, bool]:
    """Shorten steps that are longer than the limits, keeping their direction.

    The limits only make mistakes smaller. They are not a safety function, which the robot must
    have itself.

    :param max_translation: Longest step [m].
    :param max_rotation: Largest rotation of a step [rad].
    :returns: The chunk, and whether a step was shortened.
    :raises PolicyOutputError: When a step is more than :data:`REJECT_FACTOR` times a limit.
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
