"""Turns upright RGB into the model's input, in the same way for training and for the robot."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
import simplejpeg

from lightvla_ros.contract import Camera, Preprocessing
from lightvla_ros.errors import ImageError
from lightvla_ros.policy.resampling import crop_weights, resample, resize_weights

ASPECT_TOLERANCE = 0.01


def check_aspect(height: int, width: int, camera: Camera) -> None:
    """Refuse a picture of another aspect ratio than in training, unless the manifest has a ``fit``.

    A 640 x 480 picture that is squeezed to the policy's square looks like a different scene.

    :raises ImageError: ``bad_aspect``.
    """
    if camera.fit == 'refuse' and not has_aspect(height, width, camera):
        raise ImageError(
            'bad_aspect',
            f'{width} x {height} px, but trained on width / height = {camera.aspect:.3g}; crop the '
            "picture, or set the camera's fit in manifest.json to crop, pad or stretch",
        )


def fitted(image: np.ndarray, camera: Camera, fill: int = 0) -> np.ndarray:
    """Give a picture the aspect ratio that the policy was trained on, by the manifest's ``fit``.

    :param image: [H, W] or [H, W, channels].
    :param fill: Value of the pixels that ``pad`` adds.
    :returns: A central part of ``image``, ``image`` itself, or a larger image around it.
    :raises ImageError: See :func:`check_aspect`.
    """
    height, width = image.shape[:2]
    check_aspect(height, width, camera)
    if camera.fit == 'stretch' or has_aspect(height, width, camera):
        return image
    wide = width / height > camera.aspect
    if wide == (camera.fit == 'crop'):  # the width changes
        size = height, max(1, round(height * camera.aspect))
    else:
        size = max(1, round(width / camera.aspect)), width
    if camera.fit == 'crop':
        top, left = (height - size[0]) // 2, (width - size[1]) // 2
        return image[top : top + size[0], left : left + size[1]]
    padded = np.full((*size, *image.shape[2:]), fill, image.dtype)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    padded[top : top + height, left : left + width] = image
    return padded


def has_aspect(height: int, width: int, camera: Camera) -> bool:
    """Return whether a size [px] has the aspect ratio of the training data, within 1 %."""
    return abs(width / height / camera.aspect - 1) <= ASPECT_TOLERANCE


def upright_mask(mask: np.ndarray, camera: Camera) -> np.ndarray:
    """Turn a mask of the patches that a policy sees back to the camera's upright view.

    :param mask: [rows, columns] of patches in the policy's view, of any type.
    :returns: A view of ``mask``; it covers the centre crop of the upright image.
    """
    if camera.mirror:
        mask = mask[:, ::-1]
    if camera.rotate_degrees == 180:
        mask = mask[::-1, ::-1]
    return mask


class Preprocessor:
    """Turns a set of upright images into the model's input, by a manifest's recipe.

    The steps are: orientation, [aspect ratio], [JPEG round trip], lanczos3 resize with antialias,
    [centre crop], then (x/255 - mean)/std per vision tower. Order and rules are OpenVLA-OFT's
    (``openvla_utils.py``: resize_image_for_policy, crop_and_resize; ``processing_prismatic.py``).
    """

    def __init__(self, cameras: tuple[Camera, ...], recipe: Preprocessing) -> None:
        self._cameras = cameras
        self._recipe = recipe
        # (x / 255 - mean) / std as one multiplication and one addition; [towers * 3, 1, 1]
        mean = np.concatenate([tower.mean for tower in recipe.normalisation])[:, None, None]
        std = np.concatenate([tower.std for tower in recipe.normalisation])[:, None, None]
        self._scale = (1 / (255 * std)).astype(np.float32)
        self._offset = (-mean / std).astype(np.float32)

    def __call__(self, images: Mapping[str, np.ndarray]) -> np.ndarray:
        """Preprocess one image per camera.

        :param images: Upright RGB uint8 [H, W, 3] of any size, by the manifest's camera names.
        :returns: float32 [cameras, 3 * towers, height, width].
        :raises ImageError: See :func:`check_aspect`.
        :raises ValueError: When a camera is missing or unknown, or an image has a wrong type or
            shape.
        """
        wanted = [camera.name for camera in self._cameras]
        if set(images) != set(wanted):
            raise ValueError(f'images of {sorted(images)}; the policy sees {wanted}')
        towers = len(self._recipe.normalisation)
        height, width = self._cameras[0].size
        batch = np.empty((len(images), towers * 3, height, width), np.float32)
        for slot, camera in zip(batch, self._cameras, strict=True):
            image = images[camera.name]
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise ValueError(
                    f'image of {camera.name}: {image.dtype} {image.shape}, not uint8 (H, W, 3)'
                )
            upright = self.policy_view(image, camera)
            channels = upright.transpose(2, 0, 1)
            for tower in range(towers):
                slot[3 * tower : 3 * tower + 3] = channels
        batch *= self._scale
        batch += self._offset
        return batch

    def policy_view(self, image: np.ndarray, camera: Camera) -> np.ndarray:
        """Return what the policy sees of one image: uint8 [height, width, 3] RGB.

        :raises ImageError: See :func:`check_aspect`.
        """
        if camera.rotate_degrees == 180:
            image = image[::-1, ::-1]
        if camera.mirror:
            image = image[:, ::-1]
        image = fitted(image, camera)
        if self._recipe.jpeg_quality is not None:
            image = _jpeg_round_trip(image, self._recipe.jpeg_quality)
        if image.shape[:2] != camera.size:
            image = _to_uint8(resample(image, *resize_weights(image.shape[:2], camera.size)))
        if self._recipe.crop_area < 1:
            weights = crop_weights(camera.size, self._recipe.crop_area)
            # TensorFlow's saturating float -> uint8 conversion: x * 255.5, truncated
            cropped = resample(image, *weights) * np.float32(255.5 / 255)
            image = np.clip(cropped, 0, 255).astype(np.uint8)
        return image


def _jpeg_round_trip(image: np.ndarray, quality: int) -> np.ndarray:
    _, data = cv2.imencode(
        '.jpg', cv2.cvtColor(image, cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, quality)
    )
    # TensorFlow decodes with the fast integer DCT, and OpenVLA's training data were decoded so.
    # OpenCV cannot; without it two pixels in three change, by up to 15 of 255. The encoders write
    # equal bytes.
    return simplejpeg.decode_jpeg(data, fastdct=True)


def _to_uint8(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
