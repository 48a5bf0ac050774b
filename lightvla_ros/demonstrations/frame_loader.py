"""Chosen episodes' frames, read into arrays that are allocated once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import h5py
import numpy as np
from tqdm import tqdm

from lightvla_ros.demonstrations.episode import Episode
from lightvla_ros.demonstrations.errors import DemonstrationError
from lightvla_ros.demonstrations.file_index import CAMERAS
from lightvla_ros.demonstrations.frames import (
    CHUNK_SHAPE,
    NO_SEGMENTATION,
    PROPRIO_SIZE,
    Frames,
)
from lightvla_ros.demonstrations.hdf5_access import open_file
from lightvla_ros.demonstrations.pairs import cut_chunks
from lightvla_ros.one_line import one_line


@dataclass(frozen=True)
class _Plan:
    """What of an episode becomes frames: positions in its ``obs`` [N], and the chunks [N, 8, 7]."""

    index: int
    episode: Episode
    positions: np.ndarray
    chunks: np.ndarray


def load_frames(
    episodes: Sequence[tuple[int, Episode]],
    instructions: tuple[str, ...],
    segmentation_names: tuple[str, ...],
    drop_noops: bool | None,
    segmentation: bool,
    progress: bool,
) -> Frames:
    """Load episodes, each with the number that :class:`Frames` shall give it.

    :param drop_noops: None drops them where observations come after their actions: in LIBERO's own
        files, whose human operators paused. Episodes with recorded chunks are never thinned.
    :raises DemonstrationError: When there is nothing to load, or data are damaged or not finite.
    """
    plans = _plan(episodes, drop_noops)
    total = sum(len(plan.positions) for plan in plans)
    if not total:
        raise DemonstrationError(
            f'none of the {len(episodes)} chosen episodes has a frame with 8 actions after it; '
            'choose others'
        )
    height, width = plans[0].episode.image_size
    segmentation = segmentation and any(plan.episode.segmentation_names for plan in plans)
    try:
        images = np.empty((total, len(CAMERAS), height, width, 3), np.uint8)
        masks = np.empty(images.shape[:-1], np.uint8) if segmentation else None
    except MemoryError:
        raise DemonstrationError(
            f'{total} frames of {width} x {height} px do not fit into memory; load fewer episodes'
        ) from None
    proprio = np.empty((total, PROPRIO_SIZE), np.float32)
    chunks = np.empty((total, *CHUNK_SHAPE), np.float32)
    instruction, number = np.empty(total, np.int64), np.empty(total, np.int64)
    ids = {text: index for index, text in enumerate(instructions)}

    at = 0
    with tqdm(total=total, desc='loading', unit='frame', disable=not progress) as bar:
        for path, group in groupby(plans, lambda plan: plan.episode.path):
            with open_file(path) as file:
                for plan in group:
                    part = slice(at, at + len(plan.positions))
                    at = part.stop
                    _read(file, plan, images[part], proprio[part])
                    if masks is not None:
                        _read_masks(file, plan, masks[part], segmentation_names)
                    chunks[part] = plan.chunks
                    instruction[part] = ids[plan.episode.instruction]
                    number[part] = plan.index
                    bar.update(len(plan.positions))
    return Frames(
        images=images,
        proprio=proprio,
        chunks=chunks,
        instruction=instruction,
        episode=number,
        segmentation=masks,
        instructions=instructions,
        segmentation_names=segmentation_names,
    )


def _plan(episodes: Sequence[tuple[int, Episode]], drop_noops: bool | None) -> list[_Plan]:
    """Decide on every episode's frames before any image is read: the arrays need their number."""
    plans = []
    for path, group in groupby(episodes, lambda pair: pair[1].path):
        with open_file(path) as file:
            for index, episode in group:
                positions, chunks = _pair(file, episode, drop_noops)
                if not np.isfinite(chunks).all():
                    raise DemonstrationError(
                        f'{episode}: its actions are not all finite; remove or replace it'
                    )
                plans.append(_Plan(index, episode, positions, chunks))
    return plans


def _pair(
    file: h5py.File, episode: Episode, drop_noops: bool | None
) -> tuple[np.ndarray, np.ndarray]:
    if episode.labelled:
        chunks = _array(file, episode, 'obs/chunks')
        return np.arange(len(chunks)), chunks.astype(np.float32, copy=False)
    if drop_noops is None:
        drop_noops = episode.order == 'after'
    actions = _array(file, episode, 'actions')
    rows, chunks = cut_chunks(actions, episode.order, drop_noops)
    if f'data/{episode.name}/obs/rows' not in file:
        return rows, chunks
    rendered = _array(file, episode, 'obs/rows')
    _, positions, chosen = np.intersect1d(rendered, rows, return_indices=True)
    return positions, chunks[chosen]


def _read(file: h5py.File, plan: _Plan, images: np.ndarray, proprio: np.ndarray) -> None:
    """Fill one episode's images [N, 2, H, W, 3] and proprio [N, 8]."""
    episode = plan.episode
    for slot, camera in enumerate(CAMERAS):
        _read_pictures(file, plan, f'obs/{camera}_rgb', images[:, slot])
    proprio[:, :6] = _array(file, episode, 'obs/ee_states')[plan.positions]
    proprio[:, 6:] = _array(file, episode, 'obs/gripper_states')[plan.positions]
    if not np.isfinite(proprio).all():
        raise DemonstrationError(
            f'{episode}: ee_states or gripper_states are not all finite; remove or replace it'
        )


def _read_masks(
    file: h5py.File, plan: _Plan, masks: np.ndarray, all_names: tuple[str, ...]
) -> None:
    """Fill one episode's segmentation [N, 2, H, W], with the ids of ``all_names``."""
    names = plan.episode.segmentation_names
    if not names:
        masks[:] = NO_SEGMENTATION
        return
    new_ids = np.full(256, NO_SEGMENTATION, np.uint8)
    new_ids[: len(names)] = [all_names.index(name) for name in names]
    for slot, camera in enumerate(CAMERAS):
        _read_pictures(file, plan, f'obs/{camera}_segmentation', masks[:, slot])
        highest = int(masks[:, slot].max(initial=0))
        if highest >= len(names):
            raise DemonstrationError(
                f'{plan.episode}: {camera}_segmentation has id {highest}, but there are only '
                f'{len(names)} segmentation_names; record it again'
            )
        masks[:, slot] = new_ids[masks[:, slot]]


def _read_pictures(file: h5py.File, plan: _Plan, name: str, target: np.ndarray) -> None:
    """Fill ``target`` [N, H, W, …] with upright pictures."""
    positions = plan.positions
    if not len(positions):
        return
    first, last = positions[0], positions[-1]
    # one slab and then a choice: HDF5 is slow at choosing rows itself
    block = _array(file, plan.episode, name, slice(first, last + 1))
    if len(block) != len(positions):
        block = block[positions - first]
    target[:] = block[:, ::-1] if plan.episode.bottom_up else block


def _array(file: h5py.File, episode: Episode, name: str, part: slice | tuple = ()) -> np.ndarray:
    """Read a dataset of an episode."""
    try:
        return file[f'data/{episode.name}/{name}'][part]
    except (OSError, RuntimeError, KeyError) as error:
        raise DemonstrationError(
            f'{episode}: {name} cannot be read ({one_line(error)}); download or record the file '
            'again'
        ) from None
