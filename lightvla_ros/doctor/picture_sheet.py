"""What arrives beside what the policy was trained on, as one PNG to be looked at."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from lightvla_ros.files import replace_whole

HEIGHT = 192  # px of a picture
COLUMNS = 4  # recorded pictures of each camera that are shown
GAP, LINE, TEXT = 6, 22, 0.5  # px between pictures, px of a line of text, its size
PAPER, INK = 255, 30


def write_picture_sheet(
    found: Mapping[str, np.ndarray],
    references: Mapping[str, np.ndarray],
    lines: Mapping[str, str],
    path: Path,
) -> None:
    """Write a PNG: a row for each camera, the newest picture that arrived first.

    :param found: By camera, uint8 [N, H, W, 3]; of a camera that is missing nothing came.
    :param references: Recorded pictures of every camera, uint8 [N, H, W, 3].
    :param lines: By camera, what is written above its row.
    """
    rows = []
    for camera, recorded in references.items():
        chosen = np.linspace(0, len(recorded) - 1, min(COLUMNS, len(recorded))).astype(int)
        shown = found.get(camera, np.full_like(recorded[:1], PAPER))[-1]
        parts = [_scaled(shown), *(_scaled(recorded[index]) for index in chosen)]
        rows.append(_row(f'{camera}: {lines.get(camera, "")}', parts))
    width = max(row.shape[1] for row in rows)
    sheet = np.concatenate(
        [
            np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=PAPER)
            for row in rows
        ]
    )
    encoded = cv2.imencode('.png', cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_whole(path, len(encoded)) as part:
        part.write_bytes(encoded.tobytes())


def _scaled(image: np.ndarray) -> np.ndarray:
    width = max(1, round(HEIGHT * image.shape[1] / image.shape[0]))
    return cv2.resize(image, (width, HEIGHT), interpolation=cv2.INTER_AREA)


def _row(title: str, parts: list[np.ndarray]) -> np.ndarray:
    """Draw a camera's row: uint8 [h, w, 3]; a wider gap divides what arrives from the rest."""
    gaps = [GAP, 4 * GAP, *[GAP] * (len(parts) - 2)]
    width = sum(part.shape[1] for part in parts) + sum(gaps[: len(parts)])
    row = np.full((2 * LINE + HEIGHT + GAP, max(width, 900), 3), PAPER, np.uint8)
    left = 0
    for index, part in enumerate(parts):
        left += gaps[index]
        row[2 * LINE : 2 * LINE + HEIGHT, left : left + part.shape[1]] = part
        if index < 2:
            _write(row, 'arrives' if index == 0 else 'recorded for training', 2 * LINE - 7, left)
        left += part.shape[1]
    _write(row, title, LINE - 6, GAP)
    return row


def _write(row: np.ndarray, text: str, bottom: int, left: int) -> None:
    shown = text.encode('ascii', 'replace').decode()  # OpenCV's font has ASCII alone
    place = (left, bottom)
    cv2.putText(row, shown, place, cv2.FONT_HERSHEY_SIMPLEX, TEXT, (INK,) * 3, 1, cv2.LINE_AA)
