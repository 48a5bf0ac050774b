"""Differences between an engine and its reference in the robot's motion, and their limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lightvla_ros.contract import Action
from lightvla_ros.policy.actions import chunk_from_policy

COIN_TOSS = 0.02  # two openings this close may be on different sides of the middle


@dataclass(frozen=True)
class Tolerance:
    """Tolerance of one precision.

    All errors are limited only where the kept sets are equal; gripper flips are never allowed
    there. Where the kept sets differ, the actions are a different decision of the policy: they are
    reported, and only the overlap is limited.

    :param mean_jaccard: Least mean overlap of the kept sets.
    :param min_jaccard: Least overlap in any observation.
    :param millimetres: Largest error of a step's translation.
    :param degrees: Largest error of a step's rotation.
    :param gripper: Largest error of the opening, 0 to 1.
    :param action_tolerance: Largest error of a normalised number, for golden observations.
    """

    mean_jaccard: float
    min_jaccard: float
    millimetres: float
    degrees: float
    gripper: float
    action_tolerance: float

    def allows(self, difference: ActionDifference) -> bool:
        """Return whether actions from equal kept sets may differ so much."""
        return (
            difference.millimetres <= self.millimetres
            and difference.degrees <= self.degrees
            and difference.gripper <= self.gripper
            and not difference.flips
        )


# One step's rounding error must be smaller than a Panda's repeatability of 0.1 mm.
TOLERANCES = {
    'fp32': Tolerance(0.99, 0.9, 0.05, 0.05, 1e-3, 1e-3),
    'fp16': Tolerance(0.97, 0.8, 0.5, 0.5, 2e-2, 2e-2),
    'bf16': Tolerance(0.95, 0.7, 2.0, 2.0, 8e-2, 8e-2),
    'fp8': Tolerance(0.95, 0.7, 2.0, 2.0, 8e-2, 8e-2),
}


@dataclass(frozen=True)
class ActionDifference:
    """Largest differences over the steps of a chunk.

    :param millimetres: Between the ends of two steps [mm].
    :param degrees: Between two rotations [degrees].
    :param gripper: Between two openings, 0 to 1.
    :param flips: Number of steps whose gripper command is reversed, by more than a rounding error.
    """

    millimetres: float
    degrees: float
    gripper: float
    flips: int


def action_difference(reference: np.ndarray, found: np.ndarray, spec: Action) -> ActionDifference:
    """Compare two normalised outputs [chunk_length, 7], both finite."""
    one, two = chunk_from_policy(reference, spec), chunk_from_policy(found, spec)
    distance = np.linalg.norm(one.translations - two.translations, axis=1).max()
    # q and -q are the same rotation; |q - p| = 2 sin(angle / 4) and |q + p| = 2 cos(angle / 4)
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
    """Return the overlap of two sets of patch indices: 1 when equal, 0 when disjoint."""
    return len(np.intersect1d(one, two)) / len(np.union1d(one, two))


def worst(differences: Sequence[ActionDifference]) -> dict[str, float]:
    """Return the number of differences, the largest of each kind, and all flips."""
    return {
        'compared': len(differences),
        'millimetres': max((each.millimetres for each in differences), default=0.0),
        'degrees': max((each.degrees for each in differences), default=0.0),
        'gripper': max((each.gripper for each in differences), default=0.0),
        'flips': sum(each.flips for each in differences),
    }
