"""Whether pictures look like those that a policy was trained on, and which way up."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

SIDE = 16  # px to which pictures are shrunk: places of large things, and no details
TURNS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    'as it is': lambda image: image,
    'upside down (turned by 180 degrees)': lambda image: image[::-1, ::-1],
    'bottom-up (its lowest row first)': lambda image: image[::-1],
    'mirrored': lambda image: image[:, ::-1],
}


def likeness(images: np.ndarray, references: np.ndarray) -> dict[str, float]:
    """Compare the mean of pictures with that of references, in four ways up.

    :param images: uint8 [N, H, W, 3]; ``references`` likewise, of any size.
    :returns: By turn, the correlation of the two means, -1 to 1.
    """
    found, wanted = _mean(images), _mean(references)
    return {name: _correlation(turn(found), wanted) for name, turn in TURNS.items()}


def _mean(images: np.ndarray) -> np.ndarray:
    small = [cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for image in images]
    return np.mean(small, axis=0)


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    one, other = one - one.mean((0, 1)), other - other.mean((0, 1))
    size = np.linalg.norm(one) * np.linalg.norm(other)
    return float((one * other).sum() / size) if size else 0.0
