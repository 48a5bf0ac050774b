"""Checks a JPEG's segments before it is decoded: its kind, and the cost of decoding it.

A decoder processes the whole picture for each scan: 88 kB with 400 scans of 4096 x 4096 pixels took
5.7 s. So the segments are counted first (ITU-T T.81, annex B).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from lightvla_ros.errors import ImageError

MAX_SCANS = 20  # libjpeg's progressive files have 10, grey ones 6
MAX_SCANNED = 4 * 4096 * 4096  # pixels times scans: half a second of decoding
MAX_SEGMENTS = 600  # an ICC profile may take 255
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_TAKEN_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive, all with Huffman codes
_TABLES = {0xC4, 0xCC, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)}
# a marker that ends coded data: not a stuffed zero, a restart marker or a fill byte
_MARKER = re.compile(rb'\xff[^\x00\xd0-\xd7\xff]')


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Return the height and width in a JPEG's header, if the JPEG is of an accepted kind.

    Accepted JPEGs have 8 bits, are grey or have three colours, have few scans, and are complete up
    to the end marker.

    :raises ImageError: ``bad_encoding`` for another kind, ``bad_size`` for too many scans for its
        size, ``bad_data`` when its segments do not form a complete JPEG.
    """
    size = None
    scans = 0
    for marker, at, length in _segments(data):
        if marker in _FRAMES:
            if size is not None:
                raise ImageError('bad_data', 'the JPEG has two frame headers')
            if length < 8:
                raise ImageError('bad_data', "the JPEG's frame header is cut short")
            _check_kind(marker, bits=data[at], components=data[at + 5])
            size = int.from_bytes(data[at + 1 : at + 3]), int.from_bytes(data[at + 3 : at + 5])
        elif marker == _SOS:
            scans += 1
            if scans > MAX_SCANS:
                raise ImageError(
                    'bad_size',
                    f'the JPEG has more than {MAX_SCANS} scans, each of which takes a full '
                    'decoding pass; publish baseline JPEGs',
                )
    if size is None or not scans:
        raise ImageError('bad_data', 'the JPEG holds no picture')
    if scans * size[0] * size[1] > MAX_SCANNED:
        raise ImageError(
            'bad_size',
            f'the JPEG has {scans} scans of {size[1]} x {size[0]} pixels; publish smaller or '
            'baseline JPEGs',
        )
    return size


def _check_kind(marker: int, bits: int, components: int) -> None:
    if marker not in _TAKEN_FRAMES:
        kind = 'arithmetic-coded' if marker >= 0xC9 else 'lossless or hierarchical'
        raise ImageError('bad_encoding', f'the JPEG is {kind}; it must be baseline or progressive')
    if bits != 8:
        raise ImageError('bad_encoding', f'the JPEG has {bits} bits per channel; it must have 8')
    if components not in (1, 3):
        raise ImageError(
            'bad_encoding', f'the JPEG has {components} channels (CMYK has 4); it must have 1 or 3'
        )


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and length of each segment's content, up to the end marker."""
    at = 2  # after the start marker
    for _ in range(MAX_SEGMENTS):
        while data[at : at + 2] == b'\xff\xff':  # fill bytes
            at += 1
        if len(data) < at + 2:
            raise ImageError('bad_data', 'the JPEG is cut short: it has no end marker')
        marker = data[at + 1]
        if data[at] == 0xFF and marker == _EOI:
            return
        if data[at] != 0xFF or not (marker in _FRAMES or marker in _TABLES or marker == _SOS):
            raise ImageError(
                'bad_data', f'the JPEG is damaged: {data[at : at + 2].hex()} at byte {at}'
            )
        length = int.from_bytes(data[at + 2 : at + 4]) - 2
        start, end = at + 4, at + 4 + length
        if length < 0 or end > len(data):
            raise ImageError('bad_data', f'the JPEG is cut short: a segment ends at byte {end}')
        yield marker, start, length
        at = end
        if marker == _SOS:
            following = _MARKER.search(data, end)
            if following is None:
                raise ImageError('bad_data', 'the JPEG is cut short: it has no end marker')
            at = following.start()
    raise ImageError('bad_data', f'the JPEG has more than {MAX_SEGMENTS} segments')
