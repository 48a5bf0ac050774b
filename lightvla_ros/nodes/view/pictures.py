"""Pictures for the page: small JPEGs, made while somebody looks and once for all who look."""

from __future__ import annotations

import base64
import threading

import cv2
import numpy as np
import simplejpeg

from lightvla_ros.contract import Camera
from lightvla_ros.errors import ImageError
from lightvla_ros.policy.preprocessor import has_aspect
from lightvla_ros.runtime.inbox import Stamped

LARGEST = 320  # px; larger pictures are shrunk
QUALITY = 80


class SmallPictures:
    """Encodes the cameras' pictures; the newest one of each is kept. Any thread may call it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[int, dict[str, object]]] = {}

    def of(self, camera: str, frame: Stamped) -> dict[str, object]:
        """Return a frame for the page.

        :returns: ``jpeg`` (base64), ``width`` and ``height`` of the camera's own picture [px]; or
            ``error``, why it cannot be shown.
        """
        with self._lock:
            stamp, shown = self._kept.get(camera, (0, {}))
            if stamp != frame.stamp:
                shown = _shown(frame)
                self._kept[camera] = frame.stamp, shown
            return shown


def _shown(frame: Stamped) -> dict[str, object]:
    try:
        image = frame.content.decode()
    except ImageError as error:
        return {'error': f'{error.code}: {error}'}
    height, width = image.shape[:2]
    # whole pixels are left out first: averaging them would take 5 ms of each picture of 640 x 640
    every = max(1, max(height, width) // LARGEST)
    image = np.ascontiguousarray(image[::every, ::every])
    scale = LARGEST / max(image.shape[:2])
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    jpeg = simplejpeg.encode_jpeg(image, QUALITY, colorsubsampling='420')
    return {'jpeg': base64.b64encode(jpeg).decode(), 'width': width, 'height': height}


def patch_area(
    width: int, height: int, camera: Camera, crop_area: float
) -> tuple[float, float, float, float]:
    """Return the part of a camera's upright picture that the patches cover.

    :param crop_area: Part of the fitted picture, at its centre, that the policy sees.
    :returns: Left, top, width and height, as fractions of the picture's size; with the fit ``pad``
        they may reach beyond it.
    """
    across = down = 1.0
    if camera.fit != 'stretch' and not has_aspect(height, width, camera):
        ratio = camera.aspect / (width / height)
        if (ratio < 1) == (camera.fit == 'crop'):
            across = ratio
        else:
            down = 1 / ratio
    across, down = across * crop_area**0.5, down * crop_area**0.5
    return (1 - across) / 2, (1 - down) / 2, across, down
