"""HDF5 files of other layouts, by a data YAML: groups that are episodes, with their datasets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from lightvla_ros.demonstrations.hdf5 import open_file, text_attribute
from lightvla_ros.demonstrations.index import DEMO
from lightvla_ros.demonstrations.mapping import Mapping, refuse_missing
from lightvla_ros.demonstrations.recording import Column, Recorded
from lightvla_ros.errors import DemonstrationError

BLOCK = 32  # pictures that are read at once
LISTED = 30  # datasets of a file whose names are listed


@contextmanager
def open_own_hdf5(path: Path, mapping: Mapping) -> Iterator[OwnHDF5]:
    """Open a file.

    :raises DamagedFileError: When it is not HDF5.
    :raises DemonstrationError: When it has no such group of episodes.
    """
    with open_file(path) as file:
        name = mapping.hdf5.episodes
        group = file.get(name)
        if not isinstance(group, h5py.Group):
            raise refuse_missing(str(path), name, 'group of episodes', file)
        yield OwnHDF5(group, mapping)


class OwnHDF5:
    """An open file; see :class:`~lightvla_ros.demonstrations.recording.Recording`."""

    def __init__(self, group: h5py.Group, mapping: Mapping) -> None:
        self._group, self._mapping = group, mapping

    def names(self) -> list[str]:
        """Return the names of the groups, by their numbers."""
        names = [name for name, each in self._group.items() if isinstance(each, h5py.Group)]
        return sorted(names, key=_by_numbers)

    def read(self, name: str) -> Recorded:
        """Read an episode's numbers."""
        mapping, episode = self._mapping, self._group[name]
        states = {each: _column(episode, each) for each in mapping.state_names}
        actions = {each: _column(episode, each) for each in mapping.action_names}
        sizes, lengths = {}, {}
        for camera in mapping.cameras.values():
            pictures = _dataset(episode, camera.name)
            if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3:
                raise DemonstrationError(
                    f'{camera.name} is {pictures.dtype} {pictures.shape}; uint8 (rows, height, '
                    'width, 3) is needed'
                )
            sizes[camera.name] = pictures.shape[1:3]
            lengths[camera.name] = len(pictures)
        lengths |= {each: len(column.values) for each, column in (states | actions).items()}
        if len(set(lengths.values())) > 1:
            shown = ', '.join(f'{each} {length}' for each, length in lengths.items())
            raise DemonstrationError(f'its datasets have different numbers of rows: {shown}')
        instruction = ''
        if mapping.hdf5.instruction:
            instruction = text_attribute(episode, mapping.hdf5.instruction) or ''
        observed = np.arange(next(iter(lengths.values())))
        return Recorded(instruction, states, actions, None, observed, sizes)

    def pictures(self, name: str, camera: str, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Yield a camera's pictures of some rows."""
        pictures = _dataset(self._group[name], camera)
        for first in range(0, len(rows), BLOCK):
            part = rows[first : first + BLOCK]
            # one slab and then a choice: HDF5 is slow at choosing rows itself
            block = pictures[part[0] : part[-1] + 1]
            yield from block[part - part[0]]


def datasets_of(path: Path) -> Iterator[str]:
    """List the datasets of a file; none of LIBERO's. Runs in the reading process.

    :raises DamagedFileError: When it is not HDF5.
    """
    with open_file(path) as file:
        data = file.get('data')
        if isinstance(data, h5py.Group) and any(map(DEMO.fullmatch, data)):
            return
        lines: list[str] = []

        def add(name: str, each: h5py.HLObject) -> None:
            if isinstance(each, h5py.Dataset) and len(lines) < LISTED:
                lines.append(f'{name}: {each.dtype} {each.shape}')

        file.visititems(add)
    yield from lines


def _dataset(episode: h5py.Group, name: str) -> h5py.Dataset:
    found = episode.get(name)
    if not isinstance(found, h5py.Dataset):
        raise refuse_missing('the file', name, 'dataset', _names(episode))
    return found


def _names(episode: h5py.Group) -> list[str]:
    names: list[str] = []
    episode.visititems(lambda name, each: names.append(name) if hasattr(each, 'shape') else None)
    return names


def _column(episode: h5py.Group, name: str) -> Column:
    found = _dataset(episode, name)
    if found.dtype.kind not in 'fiub' or found.ndim not in (1, 2):
        raise DemonstrationError(f'{name} is {found.dtype} {found.shape}; numbers are needed')
    return Column(np.asarray(found[()], np.float64).reshape(len(found), -1))


def _by_numbers(name: str) -> tuple:
    """Sort demo_2 before demo_10."""
    return tuple(int(part) if part.isdigit() else part for part in re.split(r'(\d+)', name))
