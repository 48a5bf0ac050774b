"""Writes demonstrations as a LeRobot data set, version 3.0, with the data YAML that reads it back.

The layout is that of huggingface/lerobot (see ``lerobot.py``). Pictures are PNG in the tables, so
that nothing is lost. A LeRobot row has a picture of each camera: where one is missing, the episode
goes on as another one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from lightvla_ros.contract.robot import robot_document
from lightvla_ros.demonstrations.frames import EpisodeIndex
from lightvla_ros.demonstrations.lerobot import INFO
from lightvla_ros.demonstrations.reader import Demonstrations
from lightvla_ros.demonstrations.reading import pictures_of, signals_of
from lightvla_ros.errors import DemonstrationError
from lightvla_ros.files import whole_folder

LEAST_ROWS = 2
FILE_BYTES = 100_000_000  # of a table, roughly, as LeRobot's own default
STATE = ('x', 'y', 'z', 'rx', 'ry', 'rz', 'finger_1', 'finger_2')
ACTION = ('x', 'y', 'z', 'rx', 'ry', 'rz', 'gripper')
DATA_YAML = 'data.yaml'
_DATA = 'data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet'
_NUMBERS = {
    'timestamp': 'float32',
    'frame_index': 'int64',
    'episode_index': 'int64',
    'index': 'int64',
    'task_index': 'int64',
}


@dataclass(frozen=True)
class Part:
    """Rows of an episode that have pictures, without a gap.

    :param positions: int64 [T], of the pictures in the episode.
    :param states: float64 [T, 8]: metres, rotation vector, two fingers that grow as the hand opens.
    :param actions: float64 [T, 7]: metres, rotation vector, opening 0 to 1.
    """

    positions: np.ndarray
    states: np.ndarray
    actions: np.ndarray


@dataclass
class Written:
    """What was written.

    :param notes: One line for each episode that was left out.
    """

    episodes: int = 0
    rows: int = 0
    notes: list[str] = field(default_factory=list)


def write_lerobot(demonstrations: Demonstrations, folder: Path) -> Written:
    """Write all episodes into a new folder.

    :raises DemonstrationError: When no episode can be written, or they are of different robots.
    :raises FileExistsError: When the folder is not empty.
    :raises WriteError: When the disk is full.
    """
    episodes = demonstrations.episodes
    first = episodes[0]
    for each in episodes:
        if each.robot != first.robot:
            raise DemonstrationError(
                f'{each}: is of another robot or rate than {first}; write them as two data sets'
            )
    with whole_folder(folder) as part:
        writer = _Writer(part, demonstrations)
        for _, group in groupby(episodes, lambda each: each.path):
            writer.add(list(group))
        return writer.finish()


class _Writer:
    def __init__(self, folder: Path, demonstrations: Demonstrations) -> None:
        self._folder, self._first = folder, demonstrations.episodes[0]
        self._tasks = {text: number for number, text in enumerate(demonstrations.instructions)}
        self._robot = self._first.robot
        self._fps = 1 / self._robot.control_period
        self._state = STATE
        self._written = Written()
        self._rows: list[dict[str, Any]] = []
        self._file, self._bytes, self._table = -1, FILE_BYTES, None
        self._sums: dict[str, _Statistics] = {}

    def add(self, episodes: list[EpisodeIndex]) -> None:
        """Write the episodes of one recording."""
        signals = signals_of(episodes[0].path, episodes)
        parts = [list(_parts(e, each)) for e, each in zip(episodes, signals, strict=True)]
        chosen = [
            (episode, np.concatenate([part.positions for part in each]))
            for episode, each in zip(episodes, parts, strict=True)
            if each
        ]
        for episode, each in zip(episodes, parts, strict=True):
            if not each:
                line = f'{episode}: is left out; no {LEAST_ROWS} rows in a row have pictures'
                self._written.notes.append(line)
        if not chosen:
            return
        read = pictures_of(episodes[0].path, chosen)
        for (episode, _), each, pictures in zip(chosen, filter(None, parts), read, strict=True):
            if isinstance(pictures, DemonstrationError):
                self._written.notes.append(f'{pictures}; this episode is left out')
                continue
            at = 0
            for part in each:
                shown = pictures.images[at : at + len(part.positions)]
                at += len(part.positions)
                self._write(episode, part, shown)

    def _write(self, episode: EpisodeIndex, part: Part, images: np.ndarray) -> None:
        """Append rows; ``images`` is uint8 [T, cameras, H, W, 3]."""
        import pyarrow as pa

        if np.isnan(part.states).any():  # the recording has no fingers
            self._state = STATE[:6]
        states = part.states[:, : len(self._state)]
        count, number, begin = len(images), self._written.episodes, self._written.rows
        floats = pa.list_(pa.float32())
        columns = {
            'observation.state': pa.array(states.tolist(), floats),
            'action': pa.array(part.actions.tolist(), floats),
            'timestamp': pa.array((np.arange(count) / self._fps).tolist(), pa.float32()),
            'frame_index': pa.array(range(count), pa.int64()),
            'episode_index': pa.array([number] * count, pa.int64()),
            'index': pa.array(range(begin, begin + count), pa.int64()),
            'task_index': pa.array([self._tasks[episode.instruction]] * count, pa.int64()),
        }
        picture = pa.struct({'bytes': pa.binary(), 'path': pa.string()})
        for slot, camera in enumerate(self._robot.cameras):
            files = [{'bytes': _png(each), 'path': None} for each in images[:, slot]]
            columns[_feature(camera)] = pa.array(files, picture)
            self._count(_feature(camera), images[:, slot].reshape(-1, 3) / 255)
        self._count('observation.state', states)
        self._count('action', part.actions)
        table = pa.table(columns)
        place = self._place(table)
        row = {'episode_index': number, 'tasks': [episode.instruction], 'length': count, **place}
        row |= {'dataset_from_index': begin, 'dataset_to_index': begin + count}
        row |= {'meta/episodes/chunk_index': 0, 'meta/episodes/file_index': 0}
        self._rows.append(row)
        self._written.episodes += 1
        self._written.rows += count

    def _place(self, table: Any) -> dict[str, int]:
        """Append a table to the file, or begin the next one; return where it lies."""
        from pyarrow.parquet import ParquetWriter

        if self._bytes >= FILE_BYTES:
            self._close()
            self._file, self._bytes = self._file + 1, 0
            path = self._folder / _DATA.format(chunk_index=0, file_index=self._file)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._table = ParquetWriter(path, table.schema)
        self._table.write_table(table)
        self._bytes += table.nbytes
        return {'data/chunk_index': 0, 'data/file_index': self._file}

    def _close(self) -> None:
        if self._table is not None:
            self._table.close()

    def _count(self, name: str, values: np.ndarray) -> None:
        self._sums.setdefault(name, _Statistics()).add(values)

    def finish(self) -> Written:
        """Write what describes the rows."""
        import pyarrow as pa
        from pyarrow.parquet import write_table

        self._close()
        if not self._rows:
            lines = '; '.join(self._written.notes[:2])
            raise DemonstrationError(f'no episode can be written: {lines}')
        meta = self._folder / INFO
        episodes = meta.parent / 'episodes/chunk-000/file-000.parquet'
        episodes.parent.mkdir(parents=True)
        write_table(pa.Table.from_pylist(self._rows), episodes)
        # the text is the index of LeRobot's table, which pandas stores under this name
        tasks = {'task_index': list(self._tasks.values()), '__index_level_0__': list(self._tasks)}
        write_table(pa.table(tasks), meta.parent / 'tasks.parquet')
        meta.write_text(json.dumps(self._info(), indent=4) + '\n')
        statistics = {
            name: each.document(picture=name.startswith('observation.images'))
            for name, each in self._sums.items()
        }
        (meta.parent / 'stats.json').write_text(json.dumps(statistics, indent=4) + '\n')
        text = '# Reads this data set: lightvla data inspect DIR --mapping DIR/data.yaml\n'
        text += yaml.safe_dump(self._mapping(), sort_keys=False)
        (self._folder / DATA_YAML).write_text(text)
        return self._written

    def _info(self) -> dict[str, Any]:
        height, width = self._first.image_size
        picture = {
            'dtype': 'image',
            'shape': [height, width, 3],
            'names': ['height', 'width', 'channels'],
        }
        features: dict[str, Any] = {_feature(camera): picture for camera in self._robot.cameras}
        for name, labels in (('observation.state', self._state), ('action', ACTION)):
            features[name] = {'dtype': 'float32', 'shape': [len(labels)], 'names': list(labels)}
        for name, kind in _NUMBERS.items():
            features[name] = {'dtype': kind, 'shape': [1], 'names': None}
        return {
            'codebase_version': 'v3.0',
            'robot_type': None,
            'total_episodes': self._written.episodes,
            'total_frames': self._written.rows,
            'total_tasks': len(self._tasks),
            'chunks_size': 1000,
            'data_files_size_in_mb': FILE_BYTES // 10**6,
            'video_files_size_in_mb': 500,
            'fps': _whole(self._fps),
            'splits': {'train': f'0:{self._written.episodes}'},
            'data_path': _DATA,
            'video_path': None,
            'features': features,
        }

    def _mapping(self) -> dict[str, Any]:
        """Return the content of the data YAML."""
        state, action = 'observation.state', 'action'
        rotation = {'at': [3, 4, 5], 'form': 'axis_angle', 'unit': 'rad'}
        mapping = self._first.mapping
        given = None if mapping is None else mapping.robot
        fingers = {'name': state, 'at': [6, 7], 'form': 'fingers', 'unit': 'm'}
        return {
            **({} if given is None else {'robot': robot_document(given)}),
            'format': 'lerobot',
            'rate': _whole(self._fps),
            'execution': self._robot.action.execution,
            'cameras': {camera: _feature(camera) for camera in self._robot.cameras},
            'state': {
                'position': {'name': state, 'at': [0, 1, 2], 'unit': 'm'},
                'rotation': {'name': state, **rotation},
                **({'gripper': fingers} if len(self._state) > 6 else {}),
            },
            'action': {
                'kind': 'delta',
                'translation': {'name': action, 'at': [0, 1, 2], 'unit': 'm'},
                'rotation': {'name': action, **rotation},
                'gripper': {'name': action, 'at': [6], 'open': 1, 'closed': 0},
            },
        }


class _Statistics:
    """Minimum, maximum, mean and deviation of many rows, added one after the other."""

    def __init__(self) -> None:
        self._count = 0
        self._total: Any = 0.0
        self._squares: Any = 0.0
        self._low: Any = np.inf
        self._high: Any = -np.inf

    def add(self, values: np.ndarray) -> None:
        """Add rows [N, n]."""
        self._count += len(values)
        self._total = self._total + values.sum(axis=0)
        self._squares = self._squares + (values**2).sum(axis=0)
        self._low = np.minimum(self._low, values.min(axis=0))
        self._high = np.maximum(self._high, values.max(axis=0))

    def document(self, picture: bool) -> dict[str, Any]:
        """Return them as LeRobot's stats.json has them; those of pictures are [3, 1, 1]."""
        mean = self._total / self._count
        deviation = np.sqrt(np.maximum(self._squares / self._count - mean**2, 0))
        found = {'min': self._low, 'max': self._high, 'mean': mean, 'std': deviation}
        shape = (-1, 1, 1) if picture else (-1,)
        lists = {name: each.reshape(shape).tolist() for name, each in found.items()}
        return {**lists, 'count': [self._count]}


def _parts(episode: EpisodeIndex, signals: Any) -> Iterator[Part]:
    """Cut an episode where pictures are missing; each row goes with the action after it."""
    rows = signals.observed
    actions = rows + (episode.order == 'after')
    usable = actions < len(signals.actions)
    places = np.flatnonzero(usable)
    breaks = np.flatnonzero(np.diff(rows[places]) != 1) + 1
    for positions in np.split(places, breaks):
        if len(positions) < LEAST_ROWS:
            continue
        chosen = actions[positions]
        moves = signals.actions[chosen].copy()
        moves[:, :3] *= episode.robot.action.translation_scale
        moves[:, 3:6] *= episode.robot.action.rotation_scale
        moves[:, 6] = 1 - signals.closed[chosen]
        states = signals.states[positions] * [1, 1, 1, 1, 1, 1, 1, -1]
        yield Part(positions, states, moves)


def _feature(camera: str) -> str:
    return f'observation.images.{camera}'


def _png(image: np.ndarray) -> bytes:
    """Encode RGB uint8 [H, W, 3] without loss."""
    return cv2.imencode('.png', np.ascontiguousarray(image[..., ::-1]))[1].tobytes()


def _whole(number: float) -> float:
    """Return an int where a number is one, as LeRobot writes it."""
    return round(number) if abs(number - round(number)) < 1e-6 else number
