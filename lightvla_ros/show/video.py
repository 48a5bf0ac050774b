"""Videos of episodes: both cameras, kept patches clear and pruned ones dimmed, and a footer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from lightvla_ros.files import incomplete, part_of
from lightvla_ros.show.dimming import dim, patch_edges

SIDE = 384  # px of each camera in the video
FOOTER = 92
FRAMES_PER_SECOND = 10
WHITE, GREY, GREEN, AMBER = (245, 245, 245), (150, 150, 150), (110, 220, 120), (250, 190, 80)
BACKGROUND = (24, 26, 30)


@dataclass(frozen=True)
class Caption:
    """The text below the pictures."""

    title: str
    instruction: str
    step: int
    max_steps: int
    kept: tuple[int, ...] = ()
    total: int = 0
    latency_ms: float | None = None
    outcome: str = ''


def compose_frame(
    images: list[np.ndarray],
    masks: list[np.ndarray] | None,
    names: list[str],
    caption: Caption,
    crop_area: float = 1.0,
) -> np.ndarray:
    """Draw one frame.

    :param images: Upright RGB uint8, one per camera.
    :param masks: bool [rows, columns] per camera, true on kept patches in the upright view; None
        where nothing was pruned.
    :param crop_area: Part of the picture, at its centre, that the masks cover.
    :returns: uint8 [SIDE + FOOTER, SIDE * cameras, 3] RGB.
    """
    pictures = []
    for index, image in enumerate(images):
        picture = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        if masks is not None:
            picture = _mark(picture, masks[index], crop_area)
        _text(picture, names[index].replace('_', ' '), (10, 24), 0.5, WHITE, shadow=True)
        if caption.kept:
            count = f'{caption.kept[index]} kept'
            _text(picture, count, (SIDE - 84, 24), 0.5, GREEN, shadow=True)
        pictures.append(picture)
    frame = np.concatenate(pictures, axis=1)
    footer = np.full((FOOTER, frame.shape[1], 3), BACKGROUND, np.uint8)
    _progress_bar(footer, caption)
    _text(footer, f'"{caption.instruction}"', (12, 34), 0.55, WHITE)
    details = [caption.title, f'step {caption.step}/{caption.max_steps}']
    if caption.kept:
        details.append(f'K = {sum(caption.kept)} of {caption.total} tokens')
    if caption.latency_ms is not None and not caption.outcome:  # whose place it is
        details.append(f'{caption.latency_ms:.1f} ms per chunk')
    _text(footer, '   '.join(details), (12, 66), 0.48, GREY)
    if caption.outcome:
        colour = GREEN if caption.outcome == 'success' else AMBER
        _text(footer, caption.outcome.upper(), (frame.shape[1] - 120, 66), 0.6, colour)
    return np.concatenate([frame, footer], axis=0)


class VideoWriter:
    """An mp4 of frames as :func:`compose_frame` makes them; there is none until it is closed."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._part = part_of(path)
        self._frames = 0
        self._writer: cv2.VideoWriter | None = None

    def add(self, frame: np.ndarray, repeat: int = 1) -> None:
        """Append a frame.

        :raises OSError: When OpenCV cannot write the file.
        """
        if self._writer is None:
            size = (frame.shape[1], frame.shape[0])
            codec = cv2.VideoWriter_fourcc(*'mp4v')
            self._writer = cv2.VideoWriter(str(self._part), codec, FRAMES_PER_SECOND, size)
            if not self._writer.isOpened():
                raise OSError(f'{self._path}: OpenCV cannot write an mp4 there')
        for _ in range(repeat):
            self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
            self._frames += 1

    def close(self) -> None:
        """Finish the file.

        :raises WriteError: When it holds fewer frames than were added.
        """
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        try:
            # OpenCV says nothing of a full disk; the file lacks frames, or its index
            written = cv2.VideoCapture(str(self._part))
            count = int(written.get(cv2.CAP_PROP_FRAME_COUNT)) if written.isOpened() else 0
            written.release()
            if count != self._frames:
                raise incomplete(self._path, f'{count} of {self._frames} frames came out')
            self._part.replace(self._path)
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove the file unless it is finished."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None
        self._part.unlink(missing_ok=True)


def _mark(picture: np.ndarray, mask: np.ndarray, crop_area: float) -> np.ndarray:
    """Dim the pruned patches and outline the kept ones, as in figure 3 of the paper."""
    marked = dim(picture, mask, crop_area, colour=0.22, grey=0.16)
    rows, columns = (patch_edges(SIDE, patches, crop_area).tolist() for patches in mask.shape)
    for row, column in zip(*np.nonzero(mask), strict=True):
        last = columns[column + 1] - 1, rows[row + 1] - 1
        cv2.rectangle(marked, (columns[column], rows[row]), last, GREEN, 1)
    return marked


def _progress_bar(footer: np.ndarray, caption: Caption) -> None:
    width = footer.shape[1]
    done = int(width * min(caption.step / caption.max_steps, 1))
    footer[:4] = (52, 56, 62)
    footer[:4, :done] = AMBER if caption.outcome not in ('', 'success') else GREEN


def _text(
    image: np.ndarray,
    text: str,
    at: tuple[int, int],
    size: float,
    colour: tuple[int, int, int],
    shadow: bool = False,
) -> None:
    """Write a line of text, smaller if it is too long for the picture."""
    font = cv2.FONT_HERSHEY_SIMPLEX
    (width, _), _ = cv2.getTextSize(text, font, size, 1)
    size *= min(1.0, (image.shape[1] - at[0] - 8) / width)
    if shadow:
        cv2.putText(image, text, at, font, size, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(image, text, at, font, size, colour, 1, cv2.LINE_AA)
