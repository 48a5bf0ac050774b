"""How far an engine is from its reference, in what a robot would do, and how far it may be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lightvla_ros.contract import Action
from lightvla_ros.policy.actions import chunk_from_policy

COIN_TOSS = 0.02  # openings this near to each other may lie on two sides of the middle


@dataclass(frozen=True)
class Tolerance:
    """Tolerance of one precision.

    :param mean_jaccard: Least mean overlap of the kept sets.
    :param min_jaccard: Least overlap in any one observation.
    :param millimetres: Largest error of a step where the kept sets are equal.
    :param degrees: Likewise of its rotation.
    :param gripper: Likewise of the opening, 0 to 1.
    :param action_tolerance: Likewise of a normalised number, for golden observations.

    Gripper flips are never allowed where the kept sets are equal. Where they differ the actions are
    another decision of the policy; they are reported, and the overlap is what is limited.
    """

    mean_jaccard: float
    min_jaccard: float
    millimetres: float
    degrees: float
    gripper: float
    action_tolerance: float


# A rounding error of one step must not be seen at the gripper: a Panda repeats to 0.1 mm.
TOLERANCES = {
    'fp32': Tolerance(0.99, 0.9, 0.05, 0.05, 1e-3, 1e-3),
    'fp16': Tolerance(0.97, 0.8, 0.5, 0.5, 2e-2, 2e-2),
    'bf16': Tolerance(0.95, 0.7, 2.0, 2.0, 8e-2, 8e-2),
}


@dataclass(frozen=True)
class ActionDifference:
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


def action_difference(reference: np.ndarray, found: np.ndarray, spec: Action) -> ActionDifference:
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
    return ActionDifference(
        float(distance * 1e3),
        float(np.degrees(angle.max())),
        float(apart.max()),
        int((flips & (apart > COIN_TOSS)).sum()),
    )


def jaccard(one: np.ndarray, two: np.ndarray) -> float:
    """Overlap of two sets of patch indices: 1 when equal, 0 when disjoint."""
    return len(np.intersect1d(one, two)) / len(np.union1d(one, two))
