"""Turns the cameras' messages into pictures that a policy may act on."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from lightvla_ros.contract import Camera
from lightvla_ros.errors import ImageError
from lightvla_ros.nodes.conversions import (
    InputError,
    picture_from_message,
    stamp_ns,
)
from lightvla_ros.policy.compressed_images import CompressedPicture
from lightvla_ros.policy.images import RawPicture
from lightvla_ros.policy.preprocessor import check_aspect
from lightvla_ros.runtime.inbox import Job
from lightvla_ros.runtime.picture_doubts import FrozenPictures, check_contrast, check_unlike


class PictureReader:
    """Checks images when they arrive, and decodes and checks the images of a job.

    :param values: The node's parameters, read anew each time.
    """

    def __init__(self, cameras: tuple[Camera, ...], values: SimpleNamespace) -> None:
        self._cameras = cameras
        self._values = values
        self._frozen = FrozenPictures()

    def clear(self) -> None:
        """Forget all earlier pictures."""
        self._frozen.clear()

    def take(self, camera: str, message: Image | CompressedImage) -> RawPicture | CompressedPicture:
        """Take the picture out of a message that arrived, without decoding it.

        :raises ImageError: When the policy must not see it.
        """
        picture = picture_from_message(message, self._values.encoding_8uc3)
        span = self._frozen.span(camera, picture.data, stamp_ns(message.header.stamp)) * 1e-9
        if self._values.max_frozen and span >= self._values.max_frozen:
            raise ImageError(
                'camera_frozen', f'{span:.2f} s, max_frozen {self._values.max_frozen:.2f} s'
            )
        return picture

    def read(self, job: Job) -> dict[str, np.ndarray]:
        """Decode a job's pictures. Runs in the inference thread.

        :returns: RGB uint8 [H, W, 3] by camera.
        :raises InputError: When a picture must not be acted on.
        """
        images: dict[str, np.ndarray] = {}
        for camera in self._cameras:
            try:
                images[camera.name] = self.decode(camera, job.frames[camera.name].content, images)
            except ImageError as error:
                raise InputError(camera.name, error.code, str(error)) from None
        return images

    def decode(
        self,
        camera: Camera,
        picture: RawPicture | CompressedPicture,
        others: Mapping[str, np.ndarray],
    ) -> np.ndarray:
        """Decode and check one picture.

        :param others: Decoded pictures of other cameras at the same time, by name.
        :returns: RGB uint8 [H, W, 3].
        :raises ImageError: When the policy must not see it.
        """
        image = picture.decode()
        check_aspect(*image.shape[:2], camera)
        check_contrast(image, self._values.min_contrast)
        if not self._values.allow_equal_cameras:
            check_unlike(camera.name, image, others)
        return image
