"""Signs that a picture is not a camera's live view: frozen, blank, or equal to another camera's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from lightvla_ros.errors import ImageError

ROWS = 4  # contrast is computed from every fourth row


class FrozenPictures:
    """Measures for how long each camera has sent the same bytes with new stamps.

    The noise of a real sensor never repeats. The comparison costs almost nothing while pictures
    change, because they differ in the first bytes, and 0.1 ms for an equal one of 256 x 256 pixels.
    """

    def __init__(self) -> None:
        self._first: dict[str, tuple[Any, int]] = {}

    def clear(self) -> None:
        """Forget all pictures."""
        self._first.clear()

    def span(self, camera: str, data: Any, stamp: int) -> int:
        """Return for how long a camera's pictures have been equal.

        :param data: The picture as received, raw or compressed; it is stored for comparison.
        :param stamp: Its stamp [ns].
        :returns: Time from the first of the equal pictures to this one [ns].
        """
        first, since = self._first.get(camera, (None, 0))
        if first is None or stamp < since or len(data) != len(first) or data != first:
            self._first[camera] = data, stamp
            return 0
        return stamp - since


def contrast(image: np.ndarray) -> float:
    """Return the largest standard deviation of the three channels [grey levels].

    :param image: uint8 [H, W, 3].
    """
    return float(cv2.meanStdDev(image[::ROWS])[1].max())


def check_contrast(image: np.ndarray, least: float) -> None:
    """Refuse a picture with too little contrast to show anything.

    :param least: Smallest accepted :func:`contrast`; 0 accepts every picture.
    :raises ImageError: ``camera_blank``.
    """
    if not least:
        return
    found = contrast(image)
    if found < least:
        raise ImageError(
            'camera_blank', f'contrast {found:.2f}, min_contrast {least:.2f}; lens covered?'
        )


def check_unlike(camera: str, image: np.ndarray, others: Mapping[str, np.ndarray]) -> None:
    """Refuse a picture that equals another camera's: one camera is connected under two names.

    :param others: The pictures of other cameras, by name.
    :raises ImageError: ``cameras_equal``.
    """
    for name, other in others.items():
        if np.array_equal(image, other):
            raise ImageError(
                'cameras_equal', f'{camera} and {name} show the same picture; check the remappings'
            )
