"""An episode as a small animated GIF, for the top of a README."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lightvla_ros.contract import Manifest
from lightvla_ros.contract.libero import CONTROL_PERIOD
from lightvla_ros.files import replace_whole
from lightvla_ros.show.key_frames import pictures
from lightvla_ros.show.moments import Moment, Seen

SIDE = 256  # px of a camera
FOOTER = 40
MOST_BYTES = 3_000_000
LAST_FRAME = 1500  # ms
BACKGROUND, WHITE, GREY = (24, 26, 30), (245, 245, 245), (165, 168, 172)
# Colours, and whether the moments between chunks are left out; tried in this order
SETTINGS = ((256, False), (128, False), (128, True), (64, True), (32, True), (16, True))


def write_animation(seen: Seen, manifest: Manifest, path: Path, most: int = MOST_BYTES) -> Path:
    """Write the GIF in real time, with as many colours and frames as fit into the bytes.

    :raises ValueError: When even the plainest one is larger.
    """
    for colours, chunks_alone in SETTINGS:
        last = seen.moments[-1]
        chosen = [m for m in seen.moments if m.acted or m is last or not chunks_alone]
        frames = [_frame(moment, seen, manifest) for moment in chosen]
        data = _encode(frames, _durations(chosen), _palette(frames, seen, colours))
        if len(data) <= most:
            with replace_whole(path, len(data)) as part:
                part.write_bytes(data)
            return path
    raise ValueError(f'{path}: {len(data) / 1e6:.1f} MB, more than {most / 1e6:g}')


def _palette(frames: list[Image.Image], seen: Seen, colours: int) -> Image.Image:
    """Choose colours for all frames: of some frames, and as often of pictures that are not dimmed.

    From the frames alone nearly all would be dark.
    """
    sheet = []
    for index in np.linspace(0, len(frames) - 1, 6).round().astype(int):
        moment = seen.moments[round(index * (len(seen.moments) - 1) / max(len(frames) - 1, 1))]
        whole = np.concatenate(moment.images, axis=1)
        frame = frames[index]
        sheet += [frame, Image.fromarray(whole).resize(frame.size)]
    pixels = np.concatenate([np.asarray(picture) for picture in sheet])
    return Image.fromarray(pixels).quantize(colours, Image.Quantize.MEDIANCUT)


def _encode(frames: list[Image.Image], durations: list[int], palette: Image.Image) -> bytes:
    """One palette for all frames and no dithering: what does not move is then stored once."""
    first, *rest = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    file = io.BytesIO()
    first.save(
        file, 'GIF', save_all=True, append_images=rest, duration=durations, loop=0, optimize=True
    )
    return file.getvalue()


def _durations(moments: list[Moment]) -> list[int]:
    """Milliseconds of each frame; a GIF counts in hundredths of a second."""
    gaps = np.diff([moment.step for moment in moments]) * CONTROL_PERIOD
    return [*(round(100 * gap) * 10 for gap in gaps), LAST_FRAME]


def _frame(moment: Moment, seen: Seen, manifest: Manifest) -> Image.Image:
    shown = [
        Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        for picture in pictures(moment, manifest)
    ]
    frame = Image.new('RGB', (SIDE * len(shown), SIDE + FOOTER), BACKGROUND)
    for index, picture in enumerate(shown):
        frame.paste(picture, (index * SIDE, 0))
    draw = ImageDraw.Draw(frame)
    for size in (14, 13, 12, 11, 10, 9):
        font = ImageFont.load_default(size)
        if draw.textlength(seen.instruction, font) <= frame.width - 16:
            break
    draw.text((8, SIDE + 3), seen.instruction, WHITE, font)
    text = f'K = {moment.kept.sum()} of {moment.kept.size} visual tokens kept'
    small = ImageFont.load_default(12)
    draw.text((8, SIDE + 22), text, GREY, small)
    if moment is seen.moments[-1]:
        outcome = 'solved' if seen.success else 'not solved'
        place = (frame.width - 8 - draw.textlength(outcome, small), SIDE + 22)
        draw.text(place, outcome, WHITE, small)
    return frame
