"""Chosen episodes' frames, read into arrays that are allocated once."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from tqdm import tqdm

from lightvla_ros.contract import ACTION_SIZE
from lightvla_ros.demonstrations.episode_arrays import Pairs
from lightvla_ros.demonstrations.frames import NO_SEGMENTATION, EpisodeIndex, Frames
from lightvla_ros.demonstrations.reading import pairs_of, pictures_of
from lightvla_ros.errors import DamagedFileError, DemonstrationError

LOG = logging.getLogger(__name__)
NumberedPairs = tuple[int, EpisodeIndex, Pairs]  # the number is the one in the frames


def load_frames(
    episodes: Sequence[tuple[int, EpisodeIndex]],
    instructions: tuple[str, ...],
    segmentation_names: tuple[str, ...],
    drop_noops: bool | None,
    segmentation: bool,
    progress: bool,
) -> Frames:
    """Load episodes, each with the number that it gets in :class:`Frames`.

    A damaged file is left out as a whole and named in the log, and so is an episode without a
    frame.

    :param drop_noops: None does what the mapping says; without one it drops them where
        observations come after their actions: in LIBERO's own files, whose human operators paused.
        Episodes with recorded chunks are never thinned.
    :raises DemonstrationError: When there is nothing to load, or data are not finite.
    """
    damaged: list[DamagedFileError] = []
    unread: list[DemonstrationError] = []
    plans = list(_plans(episodes, drop_noops, damaged))
    total = sum(len(pairs.positions) for _, _, pairs in plans)
    if not total:
        raise _nothing(episodes, damaged)
    height, width = plans[0][1].image_size
    robot = plans[0][1].robot
    masked = segmentation and any(episode.segmentation_names for _, episode, _ in plans)
    try:
        images = np.empty((total, len(robot.cameras), height, width, 3), np.uint8)
        masks = np.empty(images.shape[:-1], np.uint8) if masked else None
    except MemoryError:
        raise DemonstrationError(
            f'{total} frames of {width} x {height} px do not fit into memory; load fewer episodes'
        ) from None
    proprio = np.empty((total, len(robot.state_columns)), np.float32)
    chunks = np.empty((total, robot.action.chunk_length, ACTION_SIZE), np.float32)
    instruction, number = np.empty(total, np.int64), np.empty(total, np.int64)
    ids = {text: index for index, text in enumerate(instructions)}

    at = 0
    with tqdm(total=total, desc='loading', unit='frame', disable=not progress) as bar:
        for path, group in groupby(plans, lambda plan: plan[1].path):
            begun, plans_here = at, list(group)
            chosen = [(episode, pairs.positions) for _, episode, pairs in plans_here]
            read = pictures_of(path, chosen, masked, segmentation_names)
            try:
                for (index, episode, pairs), pictures in zip(plans_here, read, strict=True):
                    if isinstance(pictures, DemonstrationError):
                        LOG.warning('%s; this episode is left out', pictures)
                        unread.append(pictures)
                        continue
                    part = slice(at, at + len(pairs.positions))
                    at = part.stop
                    images[part], proprio[part] = pictures.images, pictures.proprio
                    if masks is not None:
                        masks[part] = NO_SEGMENTATION if pictures.masks is None else pictures.masks
                    chunks[part] = pairs.chunks
                    instruction[part] = ids[episode.instruction]
                    number[part] = index
                    bar.update(len(pairs.positions))
            except DamagedFileError as error:
                at = begun
                damaged.append(error)
    if not at:
        raise _nothing(episodes, [*unread, *damaged])
    for error in damaged:
        LOG.warning('%s; all of that file is left out', error)
    return Frames(
        images=images[:at],
        proprio=proprio[:at],
        chunks=chunks[:at],
        instruction=instruction[:at],
        episode=number[:at],
        segmentation=None if masks is None else masks[:at],
        instructions=instructions,
        segmentation_names=segmentation_names,
        robot=robot,
    )


def _plans(
    episodes: Sequence[tuple[int, EpisodeIndex]],
    drop_noops: bool | None,
    damaged: list[DamagedFileError],
) -> Iterator[NumberedPairs]:
    """Decide on every episode's frames before any image is read: the arrays need their number."""
    for path, group in groupby(episodes, lambda pair: pair[1].path):
        here = list(group)
        try:
            found = list(pairs_of(path, [episode for _, episode in here], drop_noops))
        except DamagedFileError as error:
            damaged.append(error)
            continue
        if here[0][1].mapping is None:
            _name_far_actions(path, found)
        for (index, episode), pairs in zip(here, found, strict=True):
            if len(pairs.positions):
                yield index, episode, pairs
            else:
                LOG.warning(
                    '%s: is left out; no frame of it has %s after it', episode, _chunk(episode)
                )


def _name_far_actions(path: Path, found: list[Pairs]) -> None:
    far = [pairs for pairs in found if pairs.lowest < -1 or pairs.highest > 1]
    if far:
        lowest, highest = min(p.lowest for p in far), max(p.highest for p in far)
        LOG.warning(
            '%s: actions of %d of %d episodes lie outside of -1 to 1 (%.4g to %.4g), where '
            "LIBERO's controller cuts them off",
            path,
            len(far),
            len(found),
            lowest,
            highest,
        )


def _nothing(
    episodes: Sequence[tuple[int, EpisodeIndex]], damaged: Sequence[DemonstrationError]
) -> DemonstrationError:
    if damaged:
        return damaged[0]
    return DemonstrationError(
        f'none of the {len(episodes)} chosen episodes has a frame with {_chunk(episodes[0][1])} '
        'after it; choose others'
    )


def _chunk(episode: EpisodeIndex) -> str:
    return f'{episode.robot.action.chunk_length} actions'
