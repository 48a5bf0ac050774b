"""From the cameras' messages to pictures that a policy may act on."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from lightvla_ros.contract import Camera
from lightvla_ros.errors import ImageError
from lightvla_ros.nodes.conversions import (
    InputError,
    check_image_message,
    image_from_message,
    stamp_ns,
)
from lightvla_ros.policy.preprocessor import check_aspect
from lightvla_ros.runtime.inbox import Job
from lightvla_ros.runtime.picture_doubts import FrozenPictures, check_contrast, check_unlike


class PictureReader:
    """Checks images when they come and reads those of a job, by the parameters of the moment.

    :param values: The node's parameters.
    """

    def __init__(self, cameras: tuple[Camera, ...], values: SimpleNamespace) -> None:
        self._cameras = cameras
        self._values = values
        self._frozen = FrozenPictures()

    def clear(self) -> None:
        """Forget what came before."""
        self._frozen.clear()

    def check(self, camera: str, message: Image | CompressedImage) -> None:
        """Check a message that came in, cheaply, and give it the colour order that it lacks.

        :raises ImageError: When the policy must not see it.
        """
        order = self._values.encoding_8uc3
        if isinstance(message, Image) and message.encoding == '8UC3' and order != 'refuse':
            message.encoding = order
        check_image_message(message)
        span = self._frozen.span(camera, message.data, stamp_ns(message.header.stamp)) * 1e-9
        if self._values.max_frozen and span >= self._values.max_frozen:
            raise ImageError(
                'camera_frozen', f'{span:.2f} s, max_frozen {self._values.max_frozen:.2f} s'
            )

    def read(self, job: Job) -> tuple[np.ndarray, ...]:
        """Decode a job's images. Runs in the inference thread.

        :returns: RGB uint8 [H, W, 3] of each camera.
        :raises InputError: When one must not be acted on.
        """
        images: list[np.ndarray] = []
        names = [camera.name for camera in self._cameras]
        for camera in self._cameras:
            try:
                images.append(image_from_message(job.frames[camera.name].message))
                check_aspect(*images[-1].shape[:2], camera)
                check_contrast(images[-1], self._values.min_contrast)
                if not self._values.allow_equal_cameras:
                    check_unlike(names[: len(images)], images)
            except ImageError as error:
                raise InputError(camera.name, error.code, str(error)) from None
        return tuple(images)
