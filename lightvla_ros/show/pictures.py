"""Pictures of an episode, with pruned patches dimmed: key frames, and a small animated GIF."""

from __future__ import annotations

import io
import textwrap
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from lightvla_ros.contract import Manifest
from lightvla_ros.contract.libero import CONTROL_PERIOD
from lightvla_ros.files import replace_whole
from lightvla_ros.policy.preprocessor import fitted, upright_mask
from lightvla_ros.show.dimming import dim
from lightvla_ros.show.plots import save, words
from lightvla_ros.show.watch import Moment, Seen, key_moments

PICTURE_INCHES = 2.0  # inches of a picture
HEAD, GAP, LEFT = 0.95, 0.24, 0.32  # inches above, between rows, and left

CAMERA_PIXELS = 256  # px of a camera
FOOTER = 40
MOST_BYTES = 3_000_000
LAST_FRAME = 1500  # ms
BACKGROUND, WHITE, GREY = (24, 26, 30), (245, 245, 245), (165, 168, 172)
# Colours, and whether the moments between chunks are left out; tried in this order
SETTINGS = ((256, False), (128, False), (128, True), (64, True), (32, True), (16, True))


def pictures(moment: Moment, manifest: Manifest) -> list[tuple]:
    """Return a dimmed picture, uint8 [H, W, 3], for each camera."""
    area, grid = manifest.preprocessing.crop_area, manifest.patch_grid
    return [
        dim(fitted(image, camera), upright_mask(kept.reshape(grid), camera), area)
        for image, kept, camera in zip(moment.images, moment.kept, manifest.cameras, strict=True)
    ]


def write_key_frames(seen: Seen, manifest: Manifest, path: Path) -> Path:
    """Write about six moments, both cameras of each, as one PNG."""
    chosen = key_moments([moment.step for moment in seen.moments], seen.events)
    rows, columns = len(seen.cameras), len(chosen)
    width = LEFT + columns * (PICTURE_INCHES + 0.06)
    height = HEAD + rows * (PICTURE_INCHES + GAP)
    figure = Figure((width, height))
    total = seen.moments[0].kept.size
    for column, (label, index) in enumerate(chosen):
        moment = seen.moments[index]
        left = (LEFT + column * (PICTURE_INCHES + 0.06)) / width
        for row, picture in enumerate(pictures(moment, manifest)):
            bottom = 1 - (HEAD + row * (PICTURE_INCHES + GAP) + PICTURE_INCHES) / height
            axes = figure.add_axes((left, bottom, PICTURE_INCHES / width, PICTURE_INCHES / height))
            axes.imshow(picture, interpolation='lanczos')
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            axes.set_xlabel(f'{moment.kept[row].sum()} kept', fontsize=9, labelpad=2)
            if column == 0:
                axes.set_ylabel(words(seen.cameras[row]), fontsize=10)
            if row == 0:
                kept = f'step {moment.step},  K = {moment.kept.sum()} of {total}'
                axes.set_title(f'{label}\n{kept}' if label else kept, fontsize=9, pad=4)
    outcome = 'solved' if seen.success else 'not solved'
    title = textwrap.shorten(f'"{seen.instruction}"', int(12 * width), placeholder=' ..."')
    figure.text(LEFT / width, 1 - 0.3 / height, title, fontsize=13, weight='bold')
    figure.text(
        1 - 0.08 / width,
        1 - 0.3 / height,
        f'{outcome} in {seen.total_steps} steps' if seen.success else outcome,
        fontsize=10,
        color='#2e7d32' if seen.success else '#b26a00',
        ha='right',
    )
    return save(figure, path, dpi=120)


def write_animation(seen: Seen, manifest: Manifest, path: Path, most: int = MOST_BYTES) -> Path:
    """Write the GIF in real time, with as many colours and frames as fit into the bytes.

    :raises ValueError: When even the smallest variant is larger.
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
        Image.fromarray(picture).resize((CAMERA_PIXELS, CAMERA_PIXELS), Image.Resampling.LANCZOS)
        for picture in pictures(moment, manifest)
    ]
    frame = Image.new('RGB', (CAMERA_PIXELS * len(shown), CAMERA_PIXELS + FOOTER), BACKGROUND)
    for index, picture in enumerate(shown):
        frame.paste(picture, (index * CAMERA_PIXELS, 0))
    draw = ImageDraw.Draw(frame)
    for size in (14, 13, 12, 11, 10, 9):
        font = ImageFont.load_default(size)
        if draw.textlength(seen.instruction, font) <= frame.width - 16:
            break
    draw.text((8, CAMERA_PIXELS + 3), seen.instruction, WHITE, font)
    text = f'K = {moment.kept.sum()} of {moment.kept.size} visual tokens kept'
    small = ImageFont.load_default(12)
    draw.text((8, CAMERA_PIXELS + 22), text, GREY, small)
    if moment is seen.moments[-1]:
        outcome = 'solved' if seen.success else 'not solved'
        place = (frame.width - 8 - draw.textlength(outcome, small), CAMERA_PIXELS + 22)
        draw.text(place, outcome, WHITE, small)
    return frame
