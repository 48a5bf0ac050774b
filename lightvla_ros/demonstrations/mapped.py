"""Recordings of any format through a data YAML: columns become states, actions and pairs.

What a row, a state and an action are stands in ``frames.py``; these functions run in a
:class:`ReadingProcess`. An episode that cannot be used is left out, with one line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lightvla_ros.contract import PROPRIO_SIZES
from lightvla_ros.contract.robot import SCALE_TOLERANCE
from lightvla_ros.demonstrations.cut_off_mcap import damage_of
from lightvla_ros.demonstrations.episode_arrays import Pairs, Pictures, Signals
from lightvla_ros.demonstrations.frames import EpisodeIndex
from lightvla_ros.demonstrations.index import FileIndex
from lightvla_ros.demonstrations.lerobot import open_lerobot
from lightvla_ros.demonstrations.mapping import (
    GRIPPERS,
    ROTATIONS,
    CameraSource,
    GripperCommand,
    Mapping,
    Numbers,
    refuse_missing,
)
from lightvla_ros.demonstrations.own_hdf5 import open_own_hdf5
from lightvla_ros.demonstrations.pairs import cut_chunks
from lightvla_ros.demonstrations.recording import Column, Recorded, Recording
from lightvla_ros.demonstrations.rosbag import open_bag
from lightvla_ros.demonstrations.rotations import quaternions, turned, turns_between
from lightvla_ros.errors import DemonstrationError
from lightvla_ros.policy.actions import axis_angle_from_quaternion
from lightvla_ros.policy.resampling import resample, resize_weights
from lightvla_ros.policy.state import wrap_axis_angles

STATE_SIZE = sum(PROPRIO_SIZES.values())
OPEN = {'lerobot': open_lerobot, 'hdf5': open_own_hdf5, 'rosbag': open_bag}


@dataclass(frozen=True)
class Rows:
    """An episode's numbers in the contract's units, of all rows.

    :param states: float64 [T, 8]: position, axis-angle, and two fingers, which are NaN where the
        contract has none.
    :param actions: float64 [A, 7], as ``Frames.chunks``; A is T, or T - 1 for ``next_pose``.
    :param closed: float64 [A], the gripper's command as recorded: 0 open, 1 closed.
    :param stamps: float64 [T] seconds; None where the recording has none.
    :param observed: int64 [R], the rows of which there are pictures.
    """

    states: np.ndarray
    actions: np.ndarray
    closed: np.ndarray
    stamps: np.ndarray | None
    observed: np.ndarray


def open_recording(path: Path, mapping: Mapping) -> AbstractContextManager[Recording]:
    """Open a recording in the format that the mapping names.

    :raises DemonstrationError: When it is another, or lacks a name of the mapping.
    """
    return OPEN[mapping.format](path, mapping)


def index_mapped(path: Path, mapping: Mapping) -> Iterator[FileIndex]:
    """Index a recording, one item for each episode, after one that says what of a bag is damaged.

    :raises DemonstrationError: When it does not fit the mapping as a whole.
    """
    with open_recording(path, mapping) as recording:
        yield FileIndex((), tuple(damage_of(path)))
        for name in recording.names():
            try:
                recorded = recording.read(name)
                yield FileIndex((_indexed(path, name, recorded, mapping),), ())
            except DemonstrationError as error:
                yield FileIndex((), (f'{path}, {name}: is left out; {error}',))


def read_mapped_pairs(
    path: Path, episodes: Sequence[EpisodeIndex], drop_noops: bool | None
) -> Iterator[Pairs]:
    """Decide on the frames of a recording's episodes, before any picture is read."""
    for episode, found in _each(path, episodes):
        drop = episode.mapping.drop_noops if drop_noops is None else drop_noops
        rows, chunks = cut_chunks(
            found.actions, episode.mapping.order, drop, episode.robot.action.chunk_length
        )
        _, positions, chosen = np.intersect1d(found.observed, rows, return_indices=True)
        chunks = chunks[chosen]
        lowest, highest = float(chunks.min(initial=0)), float(chunks.max(initial=0))
        yield Pairs(positions, chunks, lowest, highest)


def read_mapped_pictures(
    path: Path, episodes: Sequence[tuple[EpisodeIndex, np.ndarray]]
) -> Iterator[Pictures | DemonstrationError]:
    """Read pictures and states at chosen positions; an error stands for an episode's."""
    mapping = episodes[0][0].mapping
    with open_recording(path, mapping) as recording:
        for episode, positions in episodes:
            try:
                found = rows_of(recording.read(episode.name), mapping)
                rows = found.observed[positions]
                images = _pictures(recording, episode, rows)
            except DemonstrationError as error:
                yield DemonstrationError(f'{episode}: {error}')
            else:
                states = found.states[rows][:, mapping.contract.state_columns]
                yield Pictures(images, states.astype(np.float32), None)


def read_mapped_signals(path: Path, episodes: Sequence[EpisodeIndex]) -> Iterator[Signals]:
    """Read the numbers of episodes, for an inspection."""
    for _, rows in _each(path, episodes):
        seen = rows.observed
        stamps = None if rows.stamps is None else rows.stamps[seen]
        yield Signals(rows.actions, rows.closed, seen, rows.states[seen], stamps)


def rows_of(recorded: Recorded, mapping: Mapping) -> Rows:
    """Turn an episode's columns into states and actions.

    :raises DemonstrationError: When a column is missing, of another width or not finite.
    """
    source = mapping.state
    position = _numbers(recorded.states, source.position, 3, mapping, 'state.position')
    form = source.rotation.form
    rotation = _numbers(
        recorded.states, source.rotation, ROTATIONS[form], mapping, 'state.rotation'
    )
    turns = quaternions(rotation, form)
    # angles of up to 2 pi, as LIBERO's files hold them, stay as they are on the right side
    vectors = rotation if form == 'axis_angle' else axis_angle_from_quaternion(turns)
    states = np.full((len(position), STATE_SIZE), np.nan)
    states[:, :3] = position
    states[:, 3:6] = wrap_axis_angles(mapping.contract.quaternion_reference, vectors)
    if source.gripper is not None:
        states[:, 6:] = _fingers(recorded, source.gripper, mapping)
    steps = _steps(recorded, mapping, position, turns)
    closed = _closed(recorded.actions, mapping.action.gripper)[: len(steps)]
    actions = np.column_stack([steps, np.where(closed > 0.5, 1.0, -1.0)])
    return Rows(states, actions, closed, recorded.stamps, recorded.observed)


def _each(path: Path, episodes: Sequence[EpisodeIndex]) -> Iterator[tuple[EpisodeIndex, Rows]]:
    mapping = episodes[0].mapping
    with open_recording(path, mapping) as recording:
        for episode in episodes:
            yield episode, rows_of(recording.read(episode.name), mapping)


def _indexed(path: Path, name: str, recorded: Recorded, mapping: Mapping) -> EpisodeIndex:
    """Check an episode whole, but for its pictures."""
    rows = rows_of(recorded, mapping)
    if not len(rows.observed):
        raise DemonstrationError('it has no row with a picture of each camera')
    instruction = mapping.instruction or recorded.instruction.strip()
    if not instruction:
        raise DemonstrationError('it has no instruction; give one in the mapping (instruction)')
    sizes = {camera: _size(recorded, each, mapping) for camera, each in mapping.cameras.items()}
    if len(set(sizes.values())) > 1:
        shown = ', '.join(f'{name} {size[1]} x {size[0]} px' for name, size in sizes.items())
        raise DemonstrationError(f'{shown}: the cameras differ; set size in the mapping')
    _check_shape(next(iter(sizes.values())), mapping)
    return EpisodeIndex(
        path=path,
        name=name,
        instruction=instruction,
        order=mapping.order,
        steps=len(rows.actions),
        observations=len(rows.observed),
        image_size=next(iter(sizes.values())),
        bottom_up=False,
        labelled=False,
        mapping=mapping,
    )


def _check_shape(size: tuple[int, int], mapping: Mapping) -> None:
    """Refuse pictures of another shape than those that the robot's drivers publish."""
    for name, camera in {} if mapping.robot is None else mapping.robot.cameras.items():
        height, width = camera.size
        if abs(size[1] / size[0] / (width / height) - 1) > SCALE_TOLERANCE:
            raise DemonstrationError(
                f"{name}: recorded as {size[1]} x {size[0]} px, but by the robot's contract its "
                f'driver publishes {width} x {height}, which is another shape'
            )


def _size(recorded: Recorded, camera: CameraSource, mapping: Mapping) -> tuple[int, int]:
    """Return the size of a camera's pictures as they are read."""
    height, width = recorded.sizes[camera.name]
    if camera.rotate in (90, 270):
        height, width = width, height
    if not mapping.size:
        return height, width
    wanted = tuple(mapping.size)
    if abs(width / height / (wanted[1] / wanted[0]) - 1) > SCALE_TOLERANCE:
        raise DemonstrationError(
            f'{camera.name}: {width} x {height} px do not shrink to {wanted[1]} x {wanted[0]}, '
            'which is another shape; choose a size of the same one'
        )
    return wanted


def _pictures(recording: Recording, episode: EpisodeIndex, rows: np.ndarray) -> np.ndarray:
    """Read upright pictures of the size of the index: uint8 [N, cameras, H, W, 3]."""
    cameras = episode.mapping.cameras.values()
    images = np.empty((len(rows), len(cameras), *episode.image_size, 3), np.uint8)
    for slot, camera in enumerate(cameras):
        found = 0
        for at, picture in enumerate(recording.pictures(episode.name, camera.name, rows)):
            images[at, slot] = _upright(picture, camera, episode)
            found += 1
        if found != len(rows):
            raise DemonstrationError(f'{camera.name}: {found} of {len(rows)} pictures')
    return images


def _upright(picture: np.ndarray, camera: CameraSource, episode: EpisodeIndex) -> np.ndarray:
    if camera.bottom_up:
        picture = picture[::-1]
    picture = np.rot90(picture, camera.rotate // 90)
    if picture.shape[:2] == episode.image_size:
        return picture
    if not episode.mapping.size:
        raise DemonstrationError(
            f'{camera.name}: a picture of {picture.shape[1]} x {picture.shape[0]} px, not of '
            f'{episode.image_size[1]} x {episode.image_size[0]}'
        )
    weights = resize_weights(picture.shape[:2], episode.image_size)
    shrunk = resample(np.ascontiguousarray(picture), *weights)
    return np.clip(np.rint(shrunk), 0, 255).astype(np.uint8)


def _numbers(
    columns: dict[str, Column], numbers: Numbers, width: int, mapping: Mapping, field: str
) -> np.ndarray:
    """Choose numbers of a column and bring them to metres or radians: float64 [T, width]."""
    values = chosen(columns, numbers.name, numbers.at, width, field)
    return values * mapping.scale(numbers)


def chosen(
    columns: dict[str, Column], name: str, at: Sequence[int | str], width: int, field: str
) -> np.ndarray:
    """Choose numbers of a column by place or label.

    :param at: Empty for all.
    :returns: float64 [T, width].
    :raises DemonstrationError: When one is missing, the width is another, or one is not finite.
    """
    column = columns[name]
    count = column.values.shape[1]
    places = []
    for each in at or range(count):
        if isinstance(each, str):
            if each not in column.labels:
                raise refuse_missing(f'{field}: {name}', each, 'label', column.labels)
            each = column.labels.index(each)
        if not 0 <= each < count:
            raise DemonstrationError(f'{field}: {name} has {count} numbers, and no place {each}')
        places.append(each)
    if len(places) != width:
        raise DemonstrationError(
            f'{field}: {name} has {len(places)} numbers, but {width} are needed; choose them by at'
        )
    values = column.values[:, places]
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise DemonstrationError(f'{field}: {name} is not finite in row {bad[0]}')
    return values


def _fingers(recorded: Recorded, source: Numbers, mapping: Mapping) -> np.ndarray:
    """Return two finger joints [T, 2], the second negative, as robosuite has them."""
    values = _numbers(recorded.states, source, GRIPPERS[source.form], mapping, 'state.gripper')
    if source.form in ('fingers', 'robosuite'):
        return values * [1, -1 if source.form == 'fingers' else 1]
    half = values[:, 0] / 2 if source.form == 'width' else values[:, 0]
    return np.column_stack([half, -half])


def _steps(
    recorded: Recorded, mapping: Mapping, position: np.ndarray, turns: np.ndarray
) -> np.ndarray:
    """Return translations and rotations in the contract's units [A, 6]."""
    source, units = mapping.action, mapping.contract.action
    if source.kind == 'next_pose':
        ways = position[1:] - position[:-1], turns_between(turns[:-1], turns[1:])
        factors = (1.0, 1.0)
    else:
        form = source.rotation.form
        moved = chosen(
            recorded.actions,
            source.translation.name,
            source.translation.at,
            3,
            'action.translation',
        )
        rotated = chosen(
            recorded.actions,
            source.rotation.name,
            source.rotation.at,
            ROTATIONS[form],
            'action.rotation',
        )
        factors = mapping.scale(source.translation), mapping.scale(source.rotation)
        # the rows in which the observation before each action was made
        before = np.maximum(np.arange(len(moved)) - (mapping.order == 'after'), 0)
        if source.kind == 'pose':
            target = quaternions(rotated * factors[1], form)
            ways = moved * factors[0] - position[before], turns_between(turns[before], target)
            factors = (1.0, 1.0)
        else:
            if form == 'euler_xyz':
                rotated = axis_angle_from_quaternion(quaternions(rotated * factors[1], form))
                factors = factors[0], 1.0
            if source.frame == 'tool':
                moved, rotated = turned(turns[before], moved), turned(turns[before], rotated)
            ways = moved, rotated
    # one factor for both units: numbers recorded in the contract's stay the same to the last bit
    scales = factors[0] / units.translation_scale, factors[1] / units.rotation_scale
    return np.column_stack([way * scale for way, scale in zip(ways, scales, strict=True)])


def _closed(columns: dict[str, Column], source: GripperCommand) -> np.ndarray:
    """Return the gripper's command, 0 for open and 1 for closed: [T]."""
    values = chosen(columns, source.name, source.at, 1, 'action.gripper')[:, 0]
    return (values - source.open) / (source.closed - source.open)
