"""How far an engine may be from its reference: the one place for it."""

from __future__ import annotations

from dataclasses import dataclass

COIN_TOSS = 0.02  # openings this near to each other may lie on two sides of the middle


@dataclass(frozen=True)
class Limits:
    """Limits of one precision.

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
LIMITS = {
    'fp32': Limits(0.99, 0.9, 0.05, 0.05, 1e-3, 1e-3),
    'fp16': Limits(0.97, 0.8, 0.5, 0.5, 2e-2, 2e-2),
    'bf16': Limits(0.95, 0.7, 2.0, 2.0, 8e-2, 8e-2),
}
