"""Raw images: bytes -> upright RGB.

cv_bridge is not used: it breaks with NumPy 2 (vision_opencv#535), and decoding is a few lines.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from lightvla_ros.errors import ImageError, quoted

MAX_SIDE = 4096  # px; a header with more is refused before anything is allocated
CHANNELS = {'rgb8': 3, 'bgr8': 3, 'rgba8': 4, 'bgra8': 4, 'mono8': 1}
_TO_RGB = {
    'bgr8': cv2.COLOR_BGR2RGB,
    'rgba8': cv2.COLOR_RGBA2RGB,
    'bgra8': cv2.COLOR_BGRA2RGB,
    'mono8': cv2.COLOR_GRAY2RGB,
}


def check_size(height: int, width: int) -> None:
    """Check the size in a header before anything is allocated.

    :raises ImageError: ``bad_size``.
    """
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise ImageError(
            'bad_size', f'{width} x {height} pixels; each side must be 1 to {MAX_SIDE}'
        )


@dataclass(frozen=True, eq=False)
class RawPicture:
    """An uncompressed picture from a ``sensor_msgs/Image``, whose header fits its data.

    :raises ImageError: When the header does not fit; checked before anything is allocated.
    """

    data: bytes | memoryview
    height: int
    width: int
    encoding: str
    step: int

    def __post_init__(self) -> None:
        encoding, rows = self.encoding, self.step * self.height
        if encoding == '8UC3':
            raise ImageError(
                'bad_encoding',
                "encoding '8UC3' does not give the order of the colours; set the parameter "
                'encoding_8uc3 to bgr8 or rgb8',
            )
        if encoding not in CHANNELS:
            known = ', '.join(CHANNELS)
            raise ImageError('bad_encoding', f'encoding {quoted(encoding)} is not one of {known}')
        check_size(self.height, self.width)
        if self.step < self.width * CHANNELS[encoding]:
            raise ImageError(
                'bad_size', f'step {self.step} is shorter than a row of {self.width} {encoding}'
            )
        if len(self.data) != rows:
            raise ImageError('bad_data', f'{len(self.data)} bytes, but step x height is {rows}')

    def decode(self) -> np.ndarray:
        """Return RGB uint8 [height, width, 3]; a view of ``data`` if nothing is converted."""
        channels = CHANNELS[self.encoding]
        rows = np.frombuffer(self.data, np.uint8).reshape(self.height, self.step)
        pixels = rows[:, : self.width * channels].reshape(self.height, self.width, channels)
        return pixels if self.encoding == 'rgb8' else cv2.cvtColor(pixels, _TO_RGB[self.encoding])
