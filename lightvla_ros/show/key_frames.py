"""An episode in about six pictures: both cameras, pruned patches dimmed."""

from __future__ import annotations

import textwrap
from pathlib import Path

from matplotlib.figure import Figure

from lightvla_ros.contract import Manifest
from lightvla_ros.policy.preprocessor import fitted
from lightvla_ros.show.dimming import dim, upright
from lightvla_ros.show.figures import save, words
from lightvla_ros.show.moments import Moment, Seen, key_moments

SIDE = 2.0  # inches of a picture
HEAD, GAP, LEFT = 0.95, 0.24, 0.32  # inches above, between rows, and left


def pictures(moment: Moment, manifest: Manifest) -> list[tuple]:
    """Return a dimmed picture, uint8 [H, W, 3], for each camera."""
    area = manifest.preprocessing.crop_area
    return [
        dim(fitted(image, camera), upright(kept, camera, manifest.patch_grid), area)
        for image, kept, camera in zip(moment.images, moment.kept, manifest.cameras, strict=True)
    ]


def write_key_frames(seen: Seen, manifest: Manifest, path: Path) -> Path:
    """Write the pictures as one PNG."""
    chosen = key_moments([moment.step for moment in seen.moments], seen.events)
    rows, columns = len(seen.cameras), len(chosen)
    width = LEFT + columns * (SIDE + 0.06)
    height = HEAD + rows * (SIDE + GAP)
    figure = Figure((width, height))
    total = seen.moments[0].kept.size
    for column, (label, index) in enumerate(chosen):
        moment = seen.moments[index]
        left = (LEFT + column * (SIDE + 0.06)) / width
        for row, picture in enumerate(pictures(moment, manifest)):
            bottom = 1 - (HEAD + row * (SIDE + GAP) + SIDE) / height
            axes = figure.add_axes((left, bottom, SIDE / width, SIDE / height))
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
