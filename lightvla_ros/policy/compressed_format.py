"""``CompressedImage.format``: what its sender says that the compressed picture is.

compressed_image_transport writes ``SOURCE; CODEC compressed STORED``: the encoding of the raw
image, then ``jpeg``, ``png`` or ``tiff``, then in which order colours went into the codec (nothing
for grey). Depth comes as ``SOURCE; compressedDepth CODEC``. Other senders write ``jpeg``, ``png``,
or nothing.
"""

from __future__ import annotations

import re

from lightvla_ros.errors import ImageError, quoted

_PATTERN = re.compile(r'\s*(?P<source>[^;]*?)\s*;\s*\S+\s+compressed(?:\s+(?P<stored>\S+))?\s*')
_COLOUR = ('rgb8', 'bgr8', 'rgba8', 'bgra8', 'rgb16', 'bgr16', 'rgba16', 'bgra16')
_BAYER = re.compile(r'bayer_', re.IGNORECASE)
_NO_PICTURE = re.compile(r'mono16|(8S|16U|16S|32S|32F|64F)C\d*', re.IGNORECASE)


def red_and_blue_are_swapped(text: str) -> bool:
    """Whether the stored picture has red and blue in each other's place, by its ``format``.

    A codec takes its input for blue, green, red; who gave it ``rgb8`` stored them swapped. Text of
    another pattern says nothing: the picture is what its data are.

    :raises ImageError: ``bad_encoding`` when it is no grey or colour picture (depth, Bayer mosaic,
        16 bits), or does not say how its colours are stored.
    """
    shown, text = quoted(text), text[:200]  # a stranger's text may have megabytes
    source = text.split(';')[0].strip()
    if 'compresseddepth' in text.lower() or _NO_PICTURE.fullmatch(source):
        raise ImageError(
            'bad_encoding',
            f'format {shown} is depth or 16 bits, not a colour or grey picture of 8; '
            'subscribe to the colour stream',
        )
    match = _PATTERN.fullmatch(text)
    stored = (match['stored'] or '') if match else ''
    if _BAYER.match(source) and stored not in ('bgr8', 'rgb8'):
        raise ImageError(
            'bad_encoding',
            f"format {shown} is a Bayer mosaic; publish the driver's or image_proc's colour image",
        )
    if match is None:
        return False
    if not stored and (source in _COLOUR or source == '8UC3'):
        raise ImageError(
            'bad_encoding',
            f'format {shown} does not say in which order the colours are stored; '
            f"'{source}; jpeg compressed bgr8' does",
        )
    if stored not in ('', 'bgr8', 'rgb8', 'mono8'):
        raise ImageError('bad_encoding', f'format {shown}: only bgr8, rgb8 and mono8 can be stored')
    return stored == 'rgb8'
