"""Writes demonstrations in LIBERO's own HDF5 layout (``scripts/create_dataset.py``, robomimic's).

One file per task. Additional datasets hold what that layout lacks: which steps were rendered
(``obs/rows``), the labels of each (``obs/chunks``), what each pixel shows
(``obs/*_segmentation``), and that a row's observation is the one before its action.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from lightvla_ros.demonstrations.index import index_file
from lightvla_ros.demonstrations.reading_process import stream
from lightvla_ros.errors import DamagedFileError, DemonstrationError
from lightvla_ros.files import room_for

MARGIN = 1_000_000  # bytes that HDF5 writes besides
IMAGES = {'third_person': 'agentview', 'wrist': 'eye_in_hand'}


@dataclass
class Episode:
    """One demonstration of T steps, R of which were rendered.

    :param actions: float64 [T, 7], what the expert would do at each step, LIBERO's units.
    :param states: float64 [T, S], MuJoCo's flattened state before each action.
    :param proprio: float64 [T, 8]: position, axis-angle, finger joints.
    :param robot: float64 [T, 9]: finger joints, position, quaternion x y z w.
    :param joints: float64 [T, 7].
    :param rows: int [R], the rendered steps.
    :param chunks: float32 [R, 8, 7], the expert's next actions from there.
    :param images: By camera: uint8 [R, H, W, 3], upright.
    :param segmentation: By camera: uint8 [R, H, W], upright.
    :param policy: Who drove, where it was not the expert (DAgger).
    """

    seed: int
    instruction: str
    goal: list[str]
    actions: np.ndarray
    states: np.ndarray
    proprio: np.ndarray
    robot: np.ndarray
    joints: np.ndarray
    rows: np.ndarray
    chunks: np.ndarray
    images: Mapping[str, np.ndarray]
    segmentation: Mapping[str, np.ndarray]
    model_file: str = ''
    policy: str = ''
    success: bool = True


@dataclass(frozen=True)
class Task:
    """What a file's attributes say.

    :param segmentation_names: By index.
    """

    suite: str
    index: int
    instruction: str
    bddl: Path
    render_setting: str
    segmentation_names: tuple[str, ...]
    camera_size: int
    versions: Mapping[str, str] = field(default_factory=dict)


class DemonstrationWriter:
    """Appends episodes to a task's file; use it as a context manager.

    A file that is there is continued: :attr:`seeds` are those it holds or has seen fail.

    :raises DemonstrationError: When another process has the file open, or it is damaged.
    """

    def __init__(self, folder: Path, task: Task) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f'{task.bddl.stem}_demo.hdf5'
        _check_readable(self.path)
        try:
            self._file = h5py.File(self.path, 'a')
        except BlockingIOError:
            raise DemonstrationError(
                f'{self.path}: another process writes it, or a training run is loading it; wait '
                'for that, then run this again'
            ) from None
        with self._room(MARGIN):
            self._prepare(task)

    def _prepare(self, task: Task) -> None:
        self._data = self._file.require_group('data')
        for name in list(self._data):
            demo = self._data.get(name)  # None for a link that leads nowhere
            if demo is None or 'num_samples' not in demo.attrs:
                del self._data[name]  # what a killed run left half written
        if 'problem_info' not in self._data.attrs:
            self._data.attrs.update(_file_attributes(task))

    @property
    def episodes(self) -> int:
        """Number of episodes in the file."""
        return len(self._data)

    @property
    def frames(self) -> int:
        """Number of their rendered steps."""
        return sum(len(demo['obs/rows']) for demo in self._data.values())

    @property
    def seeds(self) -> set[int]:
        """Seeds that the file holds or that have failed; they are not tried again."""
        failed = self._data.attrs.get('failed_seeds', [])
        return {int(demo.attrs['seed']) for demo in self._data.values()} | set(map(int, failed))

    def drop(self, seed: int) -> None:
        """Remember that a seed's episode failed."""
        failed = [*self._data.attrs.get('failed_seeds', []), seed]
        with self._room(MARGIN):
            self._data.attrs['failed_seeds'] = np.array(failed, np.int64)

    def add(self, episode: Episode) -> None:
        """Append an episode and write it to the disk.

        :raises WriteError: When the disk has no room for it; the file is as before.
        """
        needed = MARGIN + sum(map(_bytes, vars(episode).values()))
        with self._room(needed):
            self._add(episode)

    def _add(self, episode: Episode) -> None:
        length = len(episode.actions)
        demo = self._data.create_group(f'demo_{self.episodes}')
        ends = np.zeros(length, np.uint8)
        ends[-1] = episode.success
        for name, values in (
            ('actions', episode.actions),
            ('states', episode.states),
            ('robot_states', episode.robot),
            ('rewards', ends),
            ('dones', ends),
        ):
            demo.create_dataset(name, data=values)
        rows = np.asarray(episode.rows, np.int32)
        seen = episode.proprio[rows]
        observed: dict[str, Any] = {
            'rows': rows,
            'chunks': np.asarray(episode.chunks, np.float32),
            'ee_states': seen[:, :6],
            'ee_pos': seen[:, :3],
            'ee_ori': seen[:, 3:6],
            'gripper_states': seen[:, 6:],
            'joint_states': episode.joints[rows],
        }
        obs = demo.create_group('obs')
        for name, values in observed.items():
            obs.create_dataset(name, data=values)
        for camera, name in IMAGES.items():
            # bottom-up, as LIBERO stores what MuJoCo renders; a chunk of the file is an image
            for kind, images in (('rgb', episode.images), ('segmentation', episode.segmentation)):
                turned = np.ascontiguousarray(images[camera][:, ::-1])
                chunks = (1, *turned.shape[1:])
                obs.create_dataset(f'{name}_{kind}', data=turned, chunks=chunks, compression='lzf')
        demo.attrs['seed'] = episode.seed
        demo.attrs['language_instruction'] = episode.instruction
        demo.attrs['goal'] = json.dumps(episode.goal)
        demo.attrs['policy'] = episode.policy
        demo.attrs['init_state'] = episode.states[0]
        demo.attrs['model_file'] = episode.model_file
        demo.attrs['num_samples'] = length  # the last to be written: it marks what is whole
        self._data.attrs['num_demos'] = self.episodes
        self._data.attrs['total'] = int(self._data.attrs.get('total', 0)) + length

    @contextmanager
    def _room(self, needed: int) -> Iterator[None]:
        """Reserve disk space before writing: on a full disk HDF5 would leave a damaged file."""
        with room_for(self.path, needed):
            yield
            self._file.flush()
            os.truncate(self.path, self._file.id.get_filesize())  # the rest of that room

    def __enter__(self) -> DemonstrationWriter:
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _bytes(value: Any) -> int:
    """Count the bytes of arrays and text, before they are compressed."""
    if isinstance(value, Mapping):
        return sum(map(_bytes, value.values()))
    if isinstance(value, str):
        return len(value)
    return value.nbytes if isinstance(value, np.ndarray) else 0


def _check_readable(path: Path) -> None:
    """Refuse to append to a damaged file, which might not end.

    :raises DamagedFileError: Naming it.
    """
    try:
        if path.exists():
            list(stream(index_file, path))
    except DamagedFileError:
        raise
    except DemonstrationError:
        return  # nothing whole in it yet, say, or another process writes it: opening it tells


def _file_attributes(task: Task) -> dict[str, Any]:
    environment = {
        'env_name': 'LIBERO',
        'bddl_file': task.bddl.name,
        'camera_heights': task.camera_size,
        'camera_widths': task.camera_size,
        'versions': dict(task.versions),
    }
    return {
        'env_name': 'LIBERO',
        'problem_info': json.dumps({'language_instruction': task.instruction}),
        'macros_image_convention': 'opengl',
        'bddl_file_name': task.bddl.name,
        'bddl_file_content': task.bddl.read_text(),
        'env_args': json.dumps(environment),
        'observation_order': 'before',
        'segmentation_names': json.dumps(task.segmentation_names),
        'suite': task.suite,
        'task': task.index,
        'render_setting': task.render_setting,
        'num_demos': 0,
        'total': 0,
    }
