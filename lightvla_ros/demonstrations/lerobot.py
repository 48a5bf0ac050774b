"""LeRobot data sets in a local folder, versions 2.1 and 3.0, by a data YAML.

The layout is that of huggingface/lerobot (``src/lerobot/datasets``, commit 7427f31 of 2026-08-23):
``meta/info.json`` names the features and the patterns of the files. Version 2.1 has a Parquet file
and one video of each camera for every episode; version 3.0 puts several episodes into one file, and
its table of episodes says which, and where in a video an episode begins.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np

from lightvla_ros.demonstrations.mapping import Mapping, refuse_missing
from lightvla_ros.demonstrations.recording import Column, Recorded
from lightvla_ros.demonstrations.videos import frames_at
from lightvla_ros.errors import DemonstrationError, ImageError, one_line
from lightvla_ros.policy.compressed_images import CompressedPicture

VERSIONS = ('v2.1', 'v3.0')
INFO = 'meta/info.json'
RATE_TOLERANCE = 0.01  # of the control rate
_COUNT = {'type': 'integer', 'minimum': 0}
_INFO_SCHEMA = {
    'type': 'object',
    'required': ['codebase_version', 'fps', 'features', 'data_path'],
    'properties': {
        'fps': {'type': 'number', 'exclusiveMinimum': 0},
        'chunks_size': {'type': 'integer', 'minimum': 1},
        'features': {
            'type': 'object',
            'additionalProperties': {
                'type': 'object',
                'required': ['dtype'],
                'properties': {
                    'dtype': {'type': 'string'},
                    'shape': {'type': 'array', 'items': _COUNT},
                },
            },
        },
    },
}
_EPISODE_SCHEMA = {
    'type': 'object',
    'required': ['episode_index', 'tasks', 'length'],
    'properties': {
        'episode_index': _COUNT,
        'length': _COUNT,
        'tasks': {'type': 'array', 'items': {'type': 'string'}},
    },
    'patternProperties': {'/(chunk|file)_index$': _COUNT, '/from_timestamp$': {'type': 'number'}},
}


@dataclass(frozen=True)
class Entry:
    """An episode in the tables of a data set.

    :param index: Its number.
    :param tasks: Its instructions.
    :param length: Rows.
    :param file: What the patterns of its files need.
    :param videos: By camera, what the pattern of its video needs, and where it begins there [s].
    """

    index: int
    tasks: tuple[str, ...]
    length: int
    file: dict[str, int]
    videos: dict[str, tuple[dict[str, int], float]] = field(default_factory=dict)


@contextmanager
def open_lerobot(path: Path, mapping: Mapping) -> Iterator[LeRobotFolder]:
    """Open a data set's folder.

    :raises DemonstrationError: When it is none, is of another version or rate, or lacks a feature.
    """
    yield LeRobotFolder(path, mapping)


class LeRobotFolder:
    """An open data set; see :class:`~lightvla_ros.demonstrations.recording.Recording`."""

    def __init__(self, path: Path, mapping: Mapping) -> None:
        self._path, self._mapping = path, mapping
        self._info = read_info(path)
        self._check()
        read = self._episodes_of_v2 if self._info['codebase_version'] == 'v2.1' else self._episodes
        self._entries = {f'episode_{entry.index:06d}': entry for entry in read()}
        if not self._entries:
            raise DemonstrationError(f'{path}: has no episodes; record some')

    def names(self) -> list[str]:
        """Return episode_000000, …, by number."""
        return sorted(self._entries)

    def read(self, name: str) -> Recorded:
        """Read an episode's numbers."""
        entry, mapping = self._entries[name], self._mapping
        if len(entry.tasks) > 1:
            raise DemonstrationError(
                f'it has {len(entry.tasks)} instructions; split it, or give one in the mapping'
            )
        wanted = dict.fromkeys((*mapping.state_names, *mapping.action_names))
        table = self._table(entry, [*wanted, 'timestamp'])
        columns = {each: self._column(table, each) for each in wanted}
        stamps = np.asarray(table.column('timestamp').to_pylist(), np.float64).reshape(-1)
        if len(stamps) != entry.length:
            raise DemonstrationError(
                f'{self._file(entry)}: {len(stamps)} rows, but the table of episodes says '
                f'{entry.length}'
            )
        back = np.flatnonzero(~(np.diff(stamps) > 0))
        if len(back):
            raise DemonstrationError(f'timestamp: time does not advance after row {back[0]}')
        sizes = {each.name: self._size(each.name) for each in mapping.cameras.values()}
        instruction = entry.tasks[0] if entry.tasks else ''
        return Recorded(instruction, columns, columns, stamps, np.arange(len(stamps)), sizes)

    def pictures(self, name: str, camera: str, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Yield a camera's pictures of some rows."""
        entry = self._entries[name]
        if self._info['features'][camera]['dtype'] == 'image':
            yield from self._embedded(entry, camera, rows)
            return
        stamps = np.asarray(self._table(entry, ['timestamp']).column('timestamp').to_pylist())
        place, begin = entry.videos.get(camera, (entry.file, 0.0))
        file = self._inside('video_path', place | {'video_key': camera})
        yield from frames_at(file, begin + stamps[rows], 0.25 / self._info['fps'])

    def _check(self) -> None:
        """Check version, rate and the names of the mapping."""
        path, info, mapping = self._path, self._info, self._mapping
        version = info['codebase_version']
        if version not in VERSIONS:
            raise DemonstrationError(
                f'{path}: is of version {version!r}; {" and ".join(VERSIONS)} are read: convert it '
                'with LeRobot'
            )
        fps = info['fps']
        if not abs(fps / mapping.rate - 1) <= RATE_TOLERANCE:  # JSON of Python may hold NaN
            raise DemonstrationError(
                f"{path}: is recorded at {fps} rows per second, but the mapping's rate is "
                f'{mapping.rate:g} Hz; a row must be one control period: record at that rate, or '
                'train a policy of the other'
            )
        features = info['features']
        for camera in mapping.cameras.values():
            pictures = {n for n, each in features.items() if each['dtype'] in _PICTURES}
            if camera.name not in pictures:
                raise refuse_missing(str(path), camera.name, 'camera', pictures)
        for name in (*mapping.state_names, *mapping.action_names):
            numbers = {n for n, each in features.items() if each['dtype'] not in _PICTURES}
            if name not in numbers:
                raise refuse_missing(str(path), name, 'feature', numbers)

    def _episodes_of_v2(self) -> Iterator[Entry]:
        chunk = self._info.get('chunks_size', 1000)
        for each in _json_lines(self._path / 'meta/episodes.jsonl'):
            index = each['episode_index']
            file = {'episode_chunk': index // chunk, 'episode_index': index}
            yield Entry(index, tuple(each['tasks']), each['length'], file)

    def _episodes(self) -> Iterator[Entry]:
        cameras = [each.name for each in self._mapping.cameras.values()]
        videos = [n for n in cameras if self._info['features'][n]['dtype'] == 'video']
        names = ['episode_index', 'tasks', 'length', 'data/chunk_index', 'data/file_index']
        parts = ('chunk_index', 'file_index', 'from_timestamp')
        names += [f'videos/{name}/{part}' for name in videos for part in parts]
        for file in sorted((self._path / 'meta/episodes').glob('*/*.parquet')):
            for number, row in enumerate(_parquet(file, names, None).to_pylist()):
                _check_form(row, _EPISODE_SCHEMA, f'{file}, row {number}')
                yield Entry(
                    row['episode_index'],
                    tuple(row['tasks']),
                    row['length'],
                    {part: row[f'data/{part}'] for part in parts[:2]},
                    {
                        name: (
                            {part: row[f'videos/{name}/{part}'] for part in parts[:2]},
                            row[f'videos/{name}/from_timestamp'],
                        )
                        for name in videos
                    },
                )

    def _file(self, entry: Entry) -> Path:
        return self._inside('data_path', entry.file)

    def _inside(self, pattern: str, values: dict[str, Any]) -> Path:
        """Fill a pattern of info.json; its result must lie in the data set's folder."""
        text = self._info.get(pattern)
        try:
            file = (self._path / text.format(**values)).resolve()
        except (AttributeError, LookupError, ValueError, TypeError):
            raise DemonstrationError(f'{INFO}: {pattern} {text!r} is no usable pattern') from None
        if not file.is_relative_to(self._path.resolve()):
            raise DemonstrationError(f'{INFO}: {pattern} {text!r} leads out of the folder')
        return file

    def _table(self, entry: Entry, names: list[str]) -> Any:
        return _parquet(self._file(entry), names, [('episode_index', '==', entry.index)])

    def _column(self, table: Any, name: str) -> Column:
        rows = table.column(name).to_pylist()
        try:
            values = np.array(rows, np.float64)
        except (TypeError, ValueError):
            raise DemonstrationError(f'{name}: its rows have different widths') from None
        values = values.reshape(len(rows), -1)
        shape = self._info['features'][name].get('shape')
        wanted = int(np.prod(shape)) if isinstance(shape, list) else values.shape[1]
        if values.shape[1] != wanted:
            raise DemonstrationError(
                f'{name}: rows of {values.shape[1]} numbers, but {INFO} says {wanted}'
            )
        return Column(values, _labels(self._info['features'][name].get('names')))

    def _size(self, camera: str) -> tuple[int, int]:
        """Return height and width, which info.json gives in one of two orders."""
        feature = self._info['features'][camera]
        shape, names = feature.get('shape'), feature.get('names')
        try:
            first = int('channel' in str(names[0])) if names else int(shape[0] in (1, 3))
            height, width = (int(side) for side in shape[first : first + 2])
        except (TypeError, ValueError, IndexError):
            raise DemonstrationError(f'{camera}: {INFO} gives no height and width') from None
        return height, width

    def _embedded(self, entry: Entry, camera: str, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Yield pictures that lie in the table as PNG or JPEG, or beside it by their path."""
        column = self._table(entry, [camera]).column(camera)
        for row in rows.tolist():
            stored = column[row].as_py() or {}
            data = stored.get('bytes')
            try:
                if data is None:
                    data = (self._path / str(stored.get('path'))).read_bytes()
                yield CompressedPicture(data).decode()
            except (ImageError, OSError) as error:
                raise DemonstrationError(f'{camera}, row {row}: {one_line(error)}') from None


_PICTURES = ('video', 'image')


def is_lerobot(path: Path) -> bool:
    """Return whether a folder looks like a data set."""
    return (path / INFO).is_file()


def read_info(path: Path) -> dict[str, Any]:
    """Read ``meta/info.json``.

    :raises DemonstrationError: When it is missing or damaged.
    """
    try:
        found = json.loads((path / INFO).read_text(encoding='utf-8'))
    except OSError:
        raise DemonstrationError(f'{path}: has no {INFO}; it is no LeRobot data set') from None
    except ValueError as error:
        raise DemonstrationError(f'{path}: {INFO} is no JSON: {one_line(error)}') from None
    _check_form(found, _INFO_SCHEMA, f'{path}: {INFO}')
    return found


def _check_form(document: Any, schema: dict[str, Any], place: str) -> None:
    try:
        jsonschema.validate(document, schema)
    except jsonschema.ValidationError as error:
        field = '.'.join(map(str, error.absolute_path))
        where = f'{field}: ' if field else ''
        raise DemonstrationError(f'{place}: {where}{one_line(error.message)}') from None


def _json_lines(file: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = file.read_text(encoding='utf-8').splitlines()
    except (OSError, ValueError) as error:
        raise DemonstrationError(f'{file}: cannot be read ({one_line(error)})') from None
    for number, line in enumerate(lines, 1):
        try:
            if line.strip():
                row = json.loads(line)
                _check_form(row, _EPISODE_SCHEMA, f'{file}, line {number}')
                yield row
        except ValueError as error:
            raise DemonstrationError(f'{file}, line {number}: {one_line(error)}') from None


def _parquet(file: Path, names: list[str], filters: list | None) -> Any:
    """Read columns of a Parquet file."""
    from pyarrow.parquet import read_table  # of the extra `data`

    try:
        return read_table(file, columns=names, filters=filters, partitioning=None)
    except FileNotFoundError:
        raise DemonstrationError(f'{file}: is missing; is the download complete?') from None
    except Exception as error:  # pyarrow's own errors, KeyError for a column, OSError for damage
        raise DemonstrationError(f'{file}: cannot be read as Parquet ({one_line(error)})') from None


def _labels(names: Any) -> tuple[str, ...]:
    """Return the names of a feature's numbers: a list, or a mapping with one list in it."""
    if isinstance(names, dict):
        lists = [each for each in names.values() if isinstance(each, list)]
        names = lists[0] if len(lists) == 1 else None
    return tuple(map(str, names)) if isinstance(names, list) else ()
