"""Whether pictures look like those that a policy was trained on, and which way up.

A policy's pictures have parts that never change: the hand in the wrist's picture, the arm's base
and the table in the other. Places count the more, the less the recorded pictures differ there. So a
few recorded pictures tell how a camera is mounted, whatever lies on the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np

SIDE = 16  # px to which pictures are shrunk: places of large things, and no details
NOISE = 8.0  # grey levels; recorded pictures that differ by less are equal
CLEARLY = 0.1  # of likeness; right pictures of LIBERO are ahead by 0.2 (docs/how-to/doctor.md)
UPRIGHT = 'as it is'
TURNS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    UPRIGHT: lambda image: image,
    'upside down (turned by 180 degrees)': lambda image: image[::-1, ::-1],
    'bottom-up (its lowest row first)': lambda image: image[::-1],
    'mirrored': lambda image: image[:, ::-1],
    'turned by 90 degrees to the right': lambda image: np.rot90(image, 1),
    'turned by 90 degrees to the left': lambda image: np.rot90(image, -1),
}


@dataclass(frozen=True)
class Reference:
    """What the recorded pictures of a camera have in common.

    :param mean: float64 [SIDE, SIDE, 3], grey levels.
    :param weights: float64 [SIDE, SIDE, 1], how much each place counts; their sum is 1.
    """

    mean: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, references: np.ndarray) -> Reference:
        """Make it of recorded pictures, uint8 [N, H, W, 3] of any size."""
        small = np.array([thumbnail(image) for image in references])
        spread = small.std(axis=0).mean(axis=-1, keepdims=True)
        weights = 1 / (spread**2 + NOISE**2)
        return cls(small.mean(axis=0), weights / weights.sum())

    def correlation(self, small: np.ndarray) -> float:
        """Return the likeness of a picture of the form of :attr:`mean`, -1 to 1."""
        one, other = (each - (self.weights * each).sum(axis=(0, 1)) for each in (small, self.mean))
        size = np.sqrt((self.weights * one**2).sum() * (self.weights * other**2).sum())
        return float((self.weights * one * other).sum() / size) if size else 0.0


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Shrink a picture, uint8 [H, W, 3] -> float64 [SIDE, SIDE, 3]."""
    return cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float64)


def likeness(images: np.ndarray, references: np.ndarray) -> dict[str, float]:
    """Compare the mean of pictures with that of references, in every way up.

    :param images: uint8 [N, H, W, 3]; ``references`` likewise, of any size.
    :returns: By what the pictures are, the correlation of the two means if they are turned back,
        -1 to 1.
    """
    reference = Reference.of(references)
    found = np.mean([thumbnail(image) for image in images], axis=0)
    return {name: reference.correlation(turn(found)) for name, turn in TURNS.items()}


def doubt(camera: str, scores: Mapping[str, Mapping[str, float]]) -> str:
    """Return how a camera seems to be mounted wrongly; empty if nothing speaks for it.

    :param scores: By camera, the likeness of this camera's pictures to that camera's references.
    """
    own = scores[camera]
    best = max(own, key=own.__getitem__)
    others = {name: max(each.values()) for name, each in scores.items() if name != camera}
    other = max(others, key=others.__getitem__, default='')
    if others and others[other] > own[best] + CLEARLY:
        return (
            f"looks more like the policy's {other} ({others[other]:.2f} against {own[best]:.2f}): "
            'are the cameras swapped?'
        )
    if own[best] > own[UPRIGHT] + CLEARLY:
        return (
            f"is most like the policy's pictures if it is {best} ({own[best]:.2f} against "
            f'{own[UPRIGHT]:.2f})'
        )
    return ''


def alike_turns(references: np.ndarray) -> list[str]:
    """Return the turns that a camera's references cannot tell from upright pictures."""
    scores = likeness(references, references)
    return [name for name in TURNS if name != UPRIGHT and scores[name] > 1 - CLEARLY]
