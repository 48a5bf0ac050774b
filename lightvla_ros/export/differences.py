"""How far an engine is from its reference, in what a robot would do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lightvla_ros.contract import Action
from lightvla_ros.export.limits import COIN_TOSS
from lightvla_ros.policy.actions import chunk_from_policy


@dataclass(frozen=True)
class ActionError:
    """Largest differences over the steps of a chunk.

    :param millimetres: Between the ends of two steps [mm].
    :param degrees: Between two rotations [degrees].
    :param gripper: Between two openings, 0 to 1.
    :param flips: Steps whose gripper command goes the other way, by more than a rounding error.
    """

    millimetres: float
    degrees: float
    gripper: float
    flips: int


def action_error(reference: np.ndarray, found: np.ndarray, spec: Action) -> ActionError:
    """Compare two normalised outputs [chunk_length, 7], both finite."""
    one, two = chunk_from_policy(reference, spec), chunk_from_policy(found, spec)
    distance = np.linalg.norm(one.translations - two.translations, axis=1).max()
    # q and -q are one rotation; |q - p| = 2 sin(angle / 4) and |q + p| = 2 cos(angle / 4)
    apart, together = (
        np.linalg.norm(one.rotations + sign * two.rotations, axis=1) for sign in (-1, 1)
    )
    angle = 4 * np.arctan2(np.minimum(apart, together), np.maximum(apart, together))
    flips = (one.gripper > 0.5) != (two.gripper > 0.5)
    apart = np.abs(one.gripper - two.gripper)
    return ActionError(
        float(distance * 1e3),
        float(np.degrees(angle.max())),
        float(apart.max()),
        int((flips & (apart > COIN_TOSS)).sum()),
    )


def jaccard(one: np.ndarray, two: np.ndarray) -> float:
    """Overlap of two sets of patch indices: 1 when equal, 0 when disjoint."""
    return len(np.intersect1d(one, two)) / len(np.union1d(one, two))
