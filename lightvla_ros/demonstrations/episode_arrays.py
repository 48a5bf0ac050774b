"""Reads the arrays of episodes of LIBERO's layout; this runs in a :class:`ReadingProcess`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from lightvla_ros.contract.libero import CHUNK_LENGTH, LIBERO
from lightvla_ros.demonstrations.frames import NO_SEGMENTATION, EpisodeIndex
from lightvla_ros.demonstrations.hdf5 import open_file
from lightvla_ros.demonstrations.index import CAMERAS
from lightvla_ros.demonstrations.pairs import cut_chunks
from lightvla_ros.errors import DamagedFileError, DemonstrationError, one_line
from lightvla_ros.policy.state import wrap_axis_angles


@dataclass(frozen=True)
class Pairs:
    """The frames that are made from an episode.

    :param positions: int64 [N] in its ``obs``, ascending.
    :param chunks: float32 [N, chunk length, 7].
    :param lowest: Smallest number of all actions; ``highest``: the largest.
    """

    positions: np.ndarray
    chunks: np.ndarray
    lowest: float
    highest: float


@dataclass(frozen=True)
class Pictures:
    """An episode's frames.

    :param images: uint8 [N, cameras, H, W, 3].
    :param proprio: float32 [N, S], in the contract's layout.
    :param masks: uint8 [N, cameras, H, W], with the ids of all files; None if they
        were not requested.
    """

    images: np.ndarray
    proprio: np.ndarray
    masks: np.ndarray | None


@dataclass(frozen=True)
class Signals:
    """An episode's numbers, for an inspection.

    :param actions: float64 [A, 7], as recorded, in the units of ``Frames.chunks``.
    :param closed: float64 [A], the gripper's command before it became -1 or +1: 0 open, 1 closed.
    :param observed: int64 [R], the rows of which there are pictures.
    :param states: float64 [R, 8] of those: position, axis-angle, two fingers, which are NaN where
        the contract has none.
    :param stamps: float64 [R] seconds of those; None where the recording has none.
    """

    actions: np.ndarray
    closed: np.ndarray
    observed: np.ndarray
    states: np.ndarray
    stamps: np.ndarray | None


def read_pairs(
    path: Path, episodes: Sequence[EpisodeIndex], drop_noops: bool | None
) -> Iterator[Pairs]:
    """Decide on the frames of a file's episodes, before any image is read.

    :param drop_noops: As in :func:`~lightvla_ros.demonstrations.loader.load_frames`.
    :raises DamagedFileError: When the file is.
    :raises DemonstrationError: When actions are not finite.
    """
    with open_file(path) as file, np.errstate(over='ignore'):  # it is infinite then, and refused
        for episode in episodes:
            positions, chunks = _pair(file, episode, drop_noops)
            if not np.isfinite(chunks).all():
                raise DemonstrationError(
                    f'{episode}: its actions are not all finite; remove or replace it'
                )
            lowest, highest = chunks.min(initial=0), chunks.max(initial=0)
            yield Pairs(positions, chunks, float(lowest), float(highest))


def read_pictures(
    path: Path,
    episodes: Sequence[tuple[EpisodeIndex, np.ndarray]],
    masks: bool,
    segmentation_names: tuple[str, ...],
) -> Iterator[Pictures]:
    """Read images and states at chosen positions of a file's episodes.

    :param masks: Whether to read the segmentation.
    :param segmentation_names: Names of all files.
    :raises DamagedFileError: When the file is damaged.
    :raises DemonstrationError: When data are not finite, or a segmentation has an index without a
        name.
    """
    with open_file(path) as file, np.errstate(over='ignore'):
        for episode, positions in episodes:
            count, size = len(positions), episode.image_size
            images = np.empty((count, len(CAMERAS), *size, 3), np.uint8)
            for slot, camera in enumerate(CAMERAS):
                _read_pictures(file, episode, positions, f'obs/{camera}_rgb', images[:, slot])
            proprio = _proprio(file, episode)[positions]
            shown = None
            if masks:
                shown = np.full(images.shape[:-1], NO_SEGMENTATION, np.uint8)
                if episode.segmentation_names:
                    _read_masks(file, episode, positions, shown, segmentation_names)
            yield Pictures(images, proprio, shown)


def read_signals(path: Path, episodes: Sequence[EpisodeIndex]) -> Iterator[Signals]:
    """Read the numbers of a file's episodes.

    :raises DamagedFileError: When the file is damaged.
    :raises DemonstrationError: When states are not finite.
    """
    with open_file(path) as file, np.errstate(over='ignore'):
        for episode in episodes:
            actions = np.asarray(_array(file, episode, 'actions'), np.float64)
            observed = np.arange(episode.observations)
            if f'data/{episode.name}/obs/rows' in file:
                observed = np.asarray(_array(file, episode, 'obs/rows'), np.int64)
            states = _proprio(file, episode).astype(np.float64)
            yield Signals(actions, (actions[:, 6] + 1) / 2, observed, states, None)


def _proprio(file: h5py.File, episode: EpisodeIndex) -> np.ndarray:
    """Read an episode's states: float32 [R, 8]."""
    proprio = np.empty((episode.observations, len(LIBERO.state_columns)), np.float32)
    proprio[:, :6] = _array(file, episode, 'obs/ee_states')
    proprio[:, 6:] = _array(file, episode, 'obs/gripper_states')
    if not np.isfinite(proprio).all():
        raise DemonstrationError(
            f'{episode}: ee_states or gripper_states are not all finite; remove or replace it'
        )
    rotations = proprio[:, 3:6].astype(np.float64)
    proprio[:, 3:6] = wrap_axis_angles(LIBERO.quaternion_reference, rotations)
    return proprio


def _pair(
    file: h5py.File, episode: EpisodeIndex, drop_noops: bool | None
) -> tuple[np.ndarray, np.ndarray]:
    if episode.labelled:
        chunks = _array(file, episode, 'obs/chunks')
        return np.arange(len(chunks)), chunks.astype(np.float32, copy=False)
    if drop_noops is None:
        drop_noops = episode.order == 'after'
    actions = _array(file, episode, 'actions')
    rows, chunks = cut_chunks(actions, episode.order, drop_noops, CHUNK_LENGTH)
    if f'data/{episode.name}/obs/rows' not in file:
        return rows, chunks
    rendered = _array(file, episode, 'obs/rows')
    _, positions, chosen = np.intersect1d(rendered, rows, return_indices=True)
    return positions, chunks[chosen]


def _read_masks(
    file: h5py.File,
    episode: EpisodeIndex,
    positions: np.ndarray,
    masks: np.ndarray,
    all_names: tuple[str, ...],
) -> None:
    """Fill one episode's segmentation [N, 2, H, W], with the ids of ``all_names``."""
    names = episode.segmentation_names
    new_ids = np.full(256, NO_SEGMENTATION, np.uint8)
    new_ids[: len(names)] = [all_names.index(name) for name in names]
    for slot, camera in enumerate(CAMERAS):
        _read_pictures(file, episode, positions, f'obs/{camera}_segmentation', masks[:, slot])
        highest = int(masks[:, slot].max(initial=0))
        if highest >= len(names):
            raise DemonstrationError(
                f'{episode}: {camera}_segmentation has id {highest}, but there are only '
                f'{len(names)} segmentation_names; record it again'
            )
        masks[:, slot] = new_ids[masks[:, slot]]


def _read_pictures(
    file: h5py.File, episode: EpisodeIndex, positions: np.ndarray, name: str, target: np.ndarray
) -> None:
    """Fill ``target`` [N, H, W, …] with upright pictures."""
    if not len(positions):
        return
    first, last = positions[0], positions[-1]
    # one slab and then a choice: HDF5 is slow at choosing rows itself
    block = _array(file, episode, name, slice(first, last + 1))
    if len(block) != len(positions):
        block = block[positions - first]
    target[:] = block[:, ::-1] if episode.bottom_up else block


def _array(
    file: h5py.File, episode: EpisodeIndex, name: str, part: slice | tuple = ()
) -> np.ndarray:
    """Read a dataset of an episode."""
    try:
        return file[f'data/{episode.name}/{name}'][part]
    except Exception as error:
        raise DamagedFileError(f'{episode}: {name}', one_line(error)) from None
