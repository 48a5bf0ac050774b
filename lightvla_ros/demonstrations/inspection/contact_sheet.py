"""Some pictures of some episodes on one sheet, to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from lightvla_ros.demonstrations.inspection.figures import Shown
from lightvla_ros.files import replace_whole

WIDTH = 160  # px of a picture
GAP, LINE, TEXT = 4, 18, 0.42  # px between pictures, px of a line of text, its size
PAPER, INK = 255, 30


def write_contact_sheet(shown: Sequence[Shown], path: Path) -> None:
    """Write a PNG: for each episode its instruction, then a row of pictures for each camera."""
    blocks = [_block(each) for each in shown]
    width = max(block.shape[1] for block in blocks)
    sheet = np.concatenate(
        [
            np.pad(each, ((0, 2 * GAP), (0, width - each.shape[1]), (0, 0)), constant_values=PAPER)
            for each in blocks
        ]
    )
    encoded = cv2.imencode('.png', cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))[1]
    with replace_whole(path, len(encoded)) as part:
        part.write_bytes(encoded.tobytes())


def _block(shown: Shown) -> np.ndarray:
    """Draw an episode: uint8 [h, w, 3]."""
    height = round(WIDTH * shown.images.shape[2] / shown.images.shape[3])
    count = len(shown.rows)
    columns = max(count, 5)  # as wide as a line of text needs
    cameras = shown.episode.robot.cameras
    block = np.full(
        (2 * LINE + GAP + len(cameras) * (height + LINE), columns * (WIDTH + GAP), 3),
        PAPER,
        np.uint8,
    )
    episode = shown.episode
    _write(block, f'{episode.path.name}, {episode.name}: {episode.steps} steps', LINE - 5)
    _write(block, f'"{episode.instruction}"', 2 * LINE - 5)
    for slot, camera in enumerate(cameras):
        top = 2 * LINE + GAP + slot * (height + LINE)
        for at, (row, image) in enumerate(zip(shown.rows, shown.images[:, slot], strict=True)):
            left = at * (WIDTH + GAP)
            small = cv2.resize(image, (WIDTH, height), interpolation=cv2.INTER_AREA)
            block[top : top + height, left : left + WIDTH] = small
            text = f'{camera}, row {row}' if at == 0 else f'row {row}'
            _write(block, text, top + height + LINE - 6, left)
    return block


def _write(block: np.ndarray, text: str, bottom: int, left: int = 0) -> None:
    # OpenCV's font has ASCII alone
    shown = text.encode('ascii', 'replace').decode()
    place = (left + 2, bottom)
    cv2.putText(block, shown, place, cv2.FONT_HERSHEY_SIMPLEX, TEXT, (INK,) * 3, 1, cv2.LINE_AA)
