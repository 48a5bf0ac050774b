"""A run's figures: a line on the screen, a row of a CSV file, and TensorBoard."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

from lightvla_ros.files import append, check_room, write_text
from lightvla_ros.train.measurements import DIMENSIONS, PLACES

LOG = 'log.csv'
LOSSES = ('loss', 'l1', 'alignment', 'where', 'tokens', 'choice', 'picks')  # of training
BOARD_ROOM = 100_000  # bytes; a full disk would raise a traceback in TensorBoard's own thread


def columns(cameras: tuple[str, ...]) -> list[str]:
    """Return the columns of the CSV file; a row is empty in columns that were not measured."""
    return [
        'step',
        'epoch',
        'seconds',
        'samples_per_second',
        'eta_seconds',
        'lr',
        'alpha',
        *LOSSES,
        'gradient_norm',
        'held_out_l1',
        *(f'held_out_l1_{name}' for name in DIMENSIONS),
        'held_out_alignment',
        'held_out_where',
        'held_out_right',
        'held_out_right_objects',
        'kept',
        'kept_sd',
        *(f'kept_{name}' for name in cameras),
        'tied',
        'query_cosine',
        *(f'kept_on_{place}' for place in PLACES),
        *(f'all_on_{place}' for place in PLACES),
    ]


class Logs:
    """Writer of a run's figures.

    :param folder: The run's folder.
    :param step: The run continues after this step; later rows of an interrupted run are dropped.
    """

    def __init__(self, folder: Path, cameras: tuple[str, ...], step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._columns = columns(cameras)
        self._path = folder / LOG
        rows = _rows_until(self._path, step) if step else []
        write_text(self._path, self._text([{name: name for name in self._columns}, *rows]))
        self._file = self._path.open('r+b', buffering=0)
        self._boards = folder / 'tensorboard'
        check_room(self._boards, BOARD_ROOM)
        self._board = SummaryWriter(self._boards, purge_step=step + 1)

    def write(self, figures: dict[str, float]) -> None:
        """Write a row of figures; ``step`` is one of them.

        :raises WriteError: When the disk is full; then no part of the row is in the CSV file.
        """
        row = {name: f'{value:.6g}' for name, value in figures.items() if math.isfinite(value)}
        append(self._file, self._text([row]).encode())
        check_room(self._boards, BOARD_ROOM)
        for name, value in figures.items():
            if name != 'step':
                self._board.add_scalar(name, value, int(figures['step']))
        self._board.flush()
        print(line(figures), flush=True)

    def _text(self, rows: list[dict[str, str]]) -> str:
        text = io.StringIO()
        csv.DictWriter(text, self._columns, restval='').writerows(rows)
        return text.getvalue()

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        self._board.close()


def line(figures: dict[str, float]) -> str:
    """Return the most important figures in one line."""
    parts = [f'step {figures["step"]:.0f}']
    for name, label, form in (
        ('loss', 'loss', '.4f'),
        ('l1', 'L1', '.4f'),
        ('held_out_l1', 'held-out', '.4f'),
        ('held_out_right_objects', 'patches right', '.2f'),
        ('held_out_where', 'where', '.2f'),
        ('kept', 'kept', '.1f'),
        ('kept_sd', '+-', '.1f'),
        ('kept_on_named', 'on named', '.2f'),
        ('picks', 'picks', '.1f'),
        ('query_cosine', 'query cos', '.3f'),
        ('alpha', 'alpha', '.3f'),
        ('lr', 'lr', '.2e'),
        ('samples_per_second', 'samples/s', '.1f'),
    ):
        if name in figures:
            parts.append(f'{label} {figures[name]:{form}}')
    if 'eta_seconds' in figures:
        minutes = round(figures['eta_seconds'] / 60)
        parts.append(f'ETA {minutes // 60}:{minutes % 60:02d} h')
    return '  '.join(parts)


def _rows_until(path: Path, step: int) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline='', encoding='utf-8') as file:
        return [row for row in csv.DictReader(file) if row['step'] and float(row['step']) <= step]
