"""From upright RGB to the model's input. One path for training and for the robot."""

from __future__ import annotations

import cv2
import numpy as np
import simplejpeg

from lightvla_ros.contract import Camera, Preprocessing
from lightvla_ros.resampling import crop_weights, resample, resize_weights


class Preprocessor:
    """Turns a set of upright images into the model's input, by a manifest's recipe.

    Orientation, [JPEG round trip], lanczos3 resize with antialias, [centre crop], then
    (x/255 - mean)/std per vision tower; the order and rules are OpenVLA-OFT's
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

    def __call__(self, images: tuple[np.ndarray, ...]) -> np.ndarray:
        """Preprocess one image per camera.

        :param images: Upright RGB uint8 [H, W, 3] of any size, in camera order.
        :returns: float32 [cameras, 3 * towers, height, width].
        :raises ValueError: When the number, type or shape of the images is wrong.
        """
        if len(images) != len(self._cameras):
            raise ValueError(f'{len(images)} images for {len(self._cameras)} cameras')
        towers = len(self._recipe.normalisation)
        height, width = self._cameras[0].size
        batch = np.empty((len(images), towers * 3, height, width), np.float32)
        for slot, camera, image in zip(batch, self._cameras, images, strict=True):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise ValueError(
                    f'image of {camera.name}: {image.dtype} {image.shape}; uint8 (H, W, 3) is taken'
                )
            upright = self.policy_view(image, camera)
            channels = upright.transpose(2, 0, 1)
            for tower in range(towers):
                slot[3 * tower : 3 * tower + 3] = channels
        batch *= self._scale
        batch += self._offset
        return batch

    def policy_view(self, image: np.ndarray, camera: Camera) -> np.ndarray:
        """Return what the policy sees of one image: uint8 [height, width, 3] RGB."""
        if camera.rotate_degrees == 180:
            image = image[::-1, ::-1]
        if camera.mirror:
            image = image[:, ::-1]
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
    # TensorFlow decodes by the fast integer DCT, and so did OpenVLA's training data; OpenCV cannot,
    # which changes two pixels in three, by up to 15 of 255. The encoders agree to the byte.
    return simplejpeg.decode_jpeg(data, fastdct=True)


def _to_uint8(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
