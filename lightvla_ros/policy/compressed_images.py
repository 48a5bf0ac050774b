"""Compressed images: JPEG or PNG -> upright RGB; doubtful ones are refused."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg

from lightvla_ros.errors import ImageError, one_line
from lightvla_ros.policy.compressed_format import red_and_blue_are_swapped
from lightvla_ros.policy.images import check_size
from lightvla_ros.policy.jpeg_segments import jpeg_size
from lightvla_ros.policy.png_chunks import SIGNATURE, picture_chunks, png_size

SPARE = 1 << 20  # bytes that a file may have beyond its raw pixels: profiles, thumbnails, texts


@dataclass(frozen=True, eq=False)
class CompressedPicture:
    """A JPEG or PNG from a ``sensor_msgs/CompressedImage``.

    :param format: The message's ``format``; it says whether red and blue are swapped.
    """

    data: bytes | memoryview
    format: str = ''

    def decode(self) -> np.ndarray:
        """Decode the picture, or refuse it when anything about it is doubtful.

        Data that a decoder would repair with a warning are refused, because lost bytes result in a
        wrong picture. Time and memory are bounded by the size in the header. An EXIF tag that turns
        the picture is ignored: a camera's driver publishes upright pictures.

        :returns: uint8 [height, width, 3] RGB.
        :raises ImageError: ``bad_encoding`` when it is not an 8-bit colour or grey picture,
            ``bad_size`` when its header gives too many pixels or it has far more bytes than those,
            ``bad_data`` when it is damaged, or neither JPEG nor PNG.
        """
        swapped = red_and_blue_are_swapped(self.format)
        data = bytes(self.data)
        if data.startswith(b'\xff\xd8'):
            image = _decode_jpeg(data)
        elif data.startswith(SIGNATURE):
            image = _decode_png(data)
        else:
            raise ImageError('bad_data', 'it begins neither as a JPEG nor as a PNG')
        return image[..., ::-1] if swapped else image


def _decode_jpeg(data: bytes) -> np.ndarray:
    # The pixels equal OpenCV's, because both use libjpeg-turbo, but simplejpeg can be strict.
    _check_length(data, *jpeg_size(data))
    try:
        return simplejpeg.decode_jpeg(data, strict=True)
    except ValueError as error:
        raise ImageError('bad_data', f'the JPEG is damaged: {one_line(error)}') from None


def _decode_png(data: bytes) -> np.ndarray:
    _check_length(data, *png_size(data))
    chunks = np.frombuffer(picture_chunks(data), np.uint8)
    try:
        image = cv2.imdecode(chunks, cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        raise ImageError('bad_data', f'OpenCV refuses the PNG: {one_line(error.err)}') from None
    if image is None:
        raise ImageError('bad_data', 'OpenCV cannot decode the PNG')
    return image


def _check_length(data: bytes, height: int, width: int) -> None:
    check_size(height, width)
    if len(data) > 4 * height * width + SPARE:
        raise ImageError(
            'bad_size', f'{len(data)} bytes are too many for {width} x {height} pixels'
        )
