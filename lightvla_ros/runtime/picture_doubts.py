"""Signs that a picture does not show what is before the camera: frozen, blank, or another one's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from lightvla_ros.errors import ImageError

ROWS = 4  # contrast is taken from every fourth row


class FrozenPictures:
    """For how long each camera has sent the same bytes under new stamps.

    The noise of a real sensor never repeats. Looking costs nothing while pictures change, as they
    differ within the first bytes, and 0.1 ms for a repeated one of 256 x 256 pixels.
    """

    def __init__(self) -> None:
        self._first: dict[str, tuple[Any, int]] = {}

    def clear(self) -> None:
        """Forget all pictures."""
        self._first.clear()

    def span(self, camera: str, data: Any, stamp: int) -> int:
        """Return since when a camera's pictures are all alike.

        :param data: The picture as it came, raw or compressed: anything with equality. It is kept.
        :param stamp: Its stamp [ns].
        :returns: From the first of the equal pictures to this one [ns].
        """
        first, since = self._first.get(camera, (None, 0))
        if first is None or stamp < since or len(data) != len(first) or data != first:
            self._first[camera] = data, stamp
            return 0
        return stamp - since


def contrast(image: np.ndarray) -> float:
    """Return the standard deviation of the channel that varies most [grey levels].

    :param image: uint8 [H, W, 3].
    """
    return float(cv2.meanStdDev(image[::ROWS])[1].max())


def check_contrast(image: np.ndarray, least: float) -> None:
    """Refuse a picture in which nothing can be told apart.

    :param least: Of :func:`contrast`; 0 takes all.
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
    """Refuse a picture that is another camera's, pixel by pixel: one camera under two names.

    :param others: The pictures of other cameras, by name.
    :raises ImageError: ``cameras_equal``.
    """
    for name, other in others.items():
        if np.array_equal(image, other):
            raise ImageError(
                'cameras_equal', f'{camera} shows what {name} shows; look at the remaps'
            )
