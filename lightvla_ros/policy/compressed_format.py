"""Reads ``CompressedImage.format``, with which the sender describes the compressed picture.

compressed_image_transport writes ``SOURCE; CODEC compressed STORED``: the encoding of the raw
image, then ``jpeg``, ``png`` or ``tiff``, then the order in which the codec received the colours
(nothing for grey). Depth comes as ``SOURCE; compressedDepth CODEC``. Other senders write ``jpeg``,
``png``, or nothing.
"""

from __future__ import annotations

import re

from lightvla_ros.errors import ImageError, quoted

_PATTERN = re.compile(r'\s*(?P<source>[^;]*?)\s*;\s*\S+\s+compressed(?:\s+(?P<stored>\S+))?\s*')
_COLOUR = ('rgb8', 'bgr8', 'rgba8', 'bgra8', 'rgb16', 'bgr16', 'rgba16', 'bgra16')
_BAYER = re.compile(r'bayer_', re.IGNORECASE)
_NO_PICTURE = re.compile(r'mono16|(8S|16U|16S|32S|32F|64F)C\d*', re.IGNORECASE)


def red_and_blue_are_swapped(text: str) -> bool:
    """Return whether red and blue are swapped in the stored picture, by its ``format``.

    A codec takes its input as blue, green, red; a sender that gave it ``rgb8`` stored them swapped.
    A text of any other pattern means that the colours are not swapped.

    :raises ImageError: ``bad_encoding`` when it is not a grey or colour picture (depth, Bayer
        mosaic, 16 bits), or does not say how its colours are stored.
    """
    shown, text = quoted(text), text[:200]  # an untrusted text may have megabytes
    source = text.split(';')[0].strip()
    if 'compresseddepth' in text.lower() or _NO_PICTURE.fullmatch(source):
        raise ImageError(
            'bad_encoding',
            f'format {shown} is depth or 16 bits, not an 8-bit colour or grey picture; '
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
