"""Checks a PNG's chunks before it is decoded: checksums, lengths, and the decompressed size.

OpenCV allocates as much as a chunk's length field says (61 bytes took 4.2 GB and 14 s). It also
decompresses data that no row needs (0.4 MB took 1 s), and every compressed text (7 MB took 30 s).
So lengths, checksums and the size of the pixels are checked here, and the decoder receives only the
chunks of the picture.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from lightvla_ros.errors import ImageError

SIGNATURE = b'\x89PNG\r\n\x1a\n'
MAX_CHUNKS = 20_000  # 4096 x 4096 pixels in the usual chunks of 8 kB are 6,144
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type: grey, RGB, palette, with alpha
# Adam7: first row, first column, row step and column step of an interlaced picture's seven passes
_PASSES = (
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
)


def png_size(data: bytes) -> tuple[int, int]:
    """Return the height and width in a PNG's header.

    :raises ImageError: ``bad_data`` when the header is missing or damaged, ``bad_encoding`` when
        the picture has 16 bits per channel.
    """
    if data[8:16] != b'\x00\x00\x00\rIHDR' or len(data) < 33:
        raise ImageError('bad_data', 'the PNG has no header')
    bits, kind = data[24], data[25]
    if bits == 16:
        raise ImageError(
            'bad_encoding', 'the PNG has 16 bits per channel, like a depth image; it must have 8'
        )
    if bits not in (1, 2, 4, 8) or kind not in _CHANNELS or data[28] not in (0, 1):
        raise ImageError('bad_data', f"the PNG's header is damaged: {data[16:29].hex()}")
    return int.from_bytes(data[20:24]), int.from_bytes(data[16:20])


def picture_chunks(data: bytes) -> bytes:
    """Return the PNG with only the chunks of its picture, after checking all chunks.

    :param data: A PNG whose :func:`png_size` was checked.
    :raises ImageError: ``bad_data`` when a chunk is damaged or cut short, or the pixels are fewer
        or more than announced.
    """
    kept: list[bytes | memoryview] = [SIGNATURE]
    pixels = []
    for kind, chunk in _chunks(data):
        if kind == b'acTL':
            raise ImageError('bad_encoding', 'the PNG is an animation')
        if kind in (b'IHDR', b'PLTE', b'IDAT', b'IEND'):
            kept.append(chunk)
        if kind == b'IDAT':
            pixels.append(chunk[8:-4])
    _check_pixels(b''.join(pixels), _unpacked_length(data))
    return b''.join(kept)


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yield type and bytes of each chunk, up to the end chunk."""
    view = memoryview(data)
    at = len(SIGNATURE)
    for _ in range(MAX_CHUNKS):
        if len(view) < at + 12:
            raise ImageError('bad_data', 'the PNG is cut short: it has no end chunk')
        end = at + 12 + int.from_bytes(view[at : at + 4])
        if end > len(view):
            raise ImageError(
                'bad_data', f'the PNG is cut short or damaged: a chunk ends at byte {end}'
            )
        if zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end]):
            raise ImageError('bad_data', f'the PNG is damaged: wrong checksum at byte {at}')
        kind = bytes(view[at + 4 : at + 8])
        yield kind, view[at:end]
        if kind == b'IEND':
            return
        at = end
    raise ImageError('bad_data', f'the PNG has more than {MAX_CHUNKS} chunks')


def _check_pixels(packed: bytes, length: int) -> None:
    unpacker = zlib.decompressobj()
    try:
        # one byte more than expected shows whether there are too many; no more are decompressed
        found = len(unpacker.decompress(packed, length + 1))
    except zlib.error as error:
        raise ImageError('bad_data', f"the PNG's pixels are damaged: {error}") from None
    if found != length or not unpacker.eof:
        more = 'more' if found > length else 'fewer'
        raise ImageError('bad_data', f'the PNG holds {more} pixels than its header says')


def _unpacked_length(data: bytes) -> int:
    """Return the number of bytes of all rows, each with its filter byte, by the header."""
    height, width = png_size(data)
    bits = data[24] * _CHANNELS[data[25]]
    passes = _PASSES if data[28] else ((0, 0, 1, 1),)
    total = 0
    for row, column, row_step, column_step in passes:
        rows = -(-(height - row) // row_step)
        columns = -(-(width - column) // column_step)
        if rows > 0 and columns > 0:
            total += rows * (1 + (columns * bits + 7) // 8)
    return total
