"""Images: bytes -> upright RGB -> the model's input. One path for training and for the robot.

cv_bridge is not used: it breaks with NumPy 2 (vision_opencv#535), and decoding is a few lines.
"""

from __future__ import annotations

import cv2
import numpy as np
import simplejpeg

from lightvla_ros.contract import Camera, Preprocessing
from lightvla_ros.errors import LightVLAError
from lightvla_ros.one_line import quoted
from lightvla_ros.resampling import crop_weights, resample, resize_weights

MAX_SIDE = 4096  # px; a header that asks for more is refused before anything is allocated
CHANNELS = {'rgb8': 3, 'bgr8': 3, '8UC3': 3, 'rgba8': 4, 'bgra8': 4, 'mono8': 1}
_TO_RGB = {
    'bgr8': cv2.COLOR_BGR2RGB,
    '8UC3': cv2.COLOR_BGR2RGB,  # an OpenCV matrix without a colour name: OpenCV's order
    'rgba8': cv2.COLOR_RGBA2RGB,
    'bgra8': cv2.COLOR_BGRA2RGB,
    'mono8': cv2.COLOR_GRAY2RGB,
}
# JPEG markers: start of frame, and the segments that may stand before it (ITU-T T.81, table B.1)
_JPEG_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_TABLES = {0xC4, 0xCC, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)}


class ImageError(LightVLAError):
    """An image that cannot be used.

    :param code: ``bad_encoding``, ``bad_size`` or ``bad_data``.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def check_layout(height: int, width: int, encoding: str, step: int, length: int) -> None:
    """Check an uncompressed image's header against its data, before anything is allocated.

    :raises ImageError: When they do not fit together.
    """
    if encoding not in CHANNELS:
        known = ', '.join(CHANNELS)
        raise ImageError('bad_encoding', f'encoding {quoted(encoding)} is not one of {known}')
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise ImageError('bad_size', f'{width} x {height} pixels; 1 to {MAX_SIDE} a side are taken')
    if step < width * CHANNELS[encoding]:
        raise ImageError('bad_size', f'step {step} is shorter than a row of {width} {encoding}')
    if length != step * height:
        raise ImageError('bad_data', f'{length} bytes, but step x height is {step * height}')


def decode_image(
    data: bytes | memoryview, height: int, width: int, encoding: str, step: int
) -> np.ndarray:
    """Decode a ``sensor_msgs/Image``.

    :returns: uint8 [height, width, 3] RGB; a view of ``data`` where no conversion is needed.
    :raises ImageError: See :func:`check_layout`.
    """
    check_layout(height, width, encoding, step, len(data))
    channels = CHANNELS[encoding]
    rows = np.frombuffer(data, np.uint8).reshape(height, step)[:, : width * channels]
    pixels = rows.reshape(height, width, channels)
    return pixels if encoding == 'rgb8' else cv2.cvtColor(pixels, _TO_RGB[encoding])


def decode_compressed(data: bytes | memoryview) -> np.ndarray:
    """Decode a JPEG or PNG. Always by OpenCV: other decoders give other pixels.

    :returns: uint8 [height, width, 3] RGB.
    :raises ImageError: ``bad_data`` when it is corrupt or of another format, ``bad_size`` when its
        header announces too many pixels.
    """
    size = _announced_size(memoryview(data))
    if size is None:
        raise ImageError('bad_data', 'it begins neither as a JPEG nor as a PNG')
    # before decoding: 0.4 MB of PNG can announce 20000 x 20000 pixels, which took 2.3 GB and 5 s
    if not (min(size) >= 1 and max(size) <= MAX_SIDE):
        raise ImageError('bad_size', f'{size[1]} x {size[0]} pixels; 1 to {MAX_SIDE} a side')
    try:
        image = cv2.imdecode(
            np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        )
    except cv2.error as error:
        raise ImageError('bad_data', f'OpenCV refuses it: {error.err}') from None
    if image is None:
        raise ImageError('bad_data', 'OpenCV cannot decode it')
    return image


def _announced_size(data: memoryview) -> tuple[int, int] | None:
    """Height and width in the header of a PNG or JPEG; None when there is no such header."""
    if data[:8] == b'\x89PNG\r\n\x1a\n' and data[12:16] == b'IHDR' and len(data) >= 24:
        return int.from_bytes(data[20:24]), int.from_bytes(data[16:20])
    if data[:2] != b'\xff\xd8':
        return None
    at = 2
    while len(data) >= at + 9 and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # filling
            at += 1
        elif marker in _JPEG_TABLES:
            at += 2 + int.from_bytes(data[at + 2 : at + 4])
        elif marker in _JPEG_FRAMES:
            return int.from_bytes(data[at + 5 : at + 7]), int.from_bytes(data[at + 7 : at + 9])
        else:  # what a decoder would step over in another way than this one
            return None
    return None


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
