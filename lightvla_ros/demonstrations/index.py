"""Index of one file of LIBERO's layout: its episodes, checked, without their frames."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from lightvla_ros.contract import ACTION_SIZE
from lightvla_ros.contract.libero import CHUNK_LENGTH
from lightvla_ros.demonstrations.frames import EpisodeIndex
from lightvla_ros.demonstrations.hdf5 import (
    json_attribute,
    number_attribute,
    open_file,
    text_attribute,
)
from lightvla_ros.demonstrations.observation_order import find_order
from lightvla_ros.errors import DemonstrationError, one_line

CAMERAS = ('agentview', 'eye_in_hand')  # third person, wrist: the order of every policy's cameras
DEMO = re.compile(r'demo_(\d+)')
SCENE = re.compile(r'^[A-Z_]*SCENE\d+_')  # LIBERO-90's and LIBERO-10's names begin with the scene


@dataclass(frozen=True)
class FileIndex:
    """Contents of a file.

    :param episodes: In the order of their numbers.
    :param notes: One line for each episode that is left out and for each assumption that was made.
    """

    episodes: tuple[EpisodeIndex, ...]
    notes: tuple[str, ...]


def index_file(path: Path, order: str | None = None) -> Iterator[FileIndex]:
    """Index a file; one item, as this runs in a :class:`ReadingProcess`.

    :param order: ``before`` or ``after``; None finds out (:func:`find_order`).
    :raises DamagedFileError: When the file is corrupt.
    :raises DemonstrationError: When it is foreign, or something in it is missing or misshapen.
    """
    with open_file(path) as file:
        data = file.get('data')
        demos, notes = _demos(path, data) if isinstance(data, h5py.Group) else ([], [])
        if not demos:
            raise DemonstrationError(
                f"{path}: has no episodes data/demo_0, data/demo_1, …; it is no file of LIBERO's "
                'layout, or empty: remove it'
            )
        order = order or find_order(data, demos)
        common = {
            'path': path,
            'order': order,
            'bottom_up': _bottom_up(path, data, notes),
            'suite': text_attribute(data, 'suite') or '',
            'task': number_attribute(data, 'task'),
            'render_setting': text_attribute(data, 'render_setting') or '',
        }
        names = _names(data, path)
        episodes = [_episode(path, data[demo], demo, names, common) for demo in demos]
        yield FileIndex(tuple(episodes), tuple(notes))


def _demos(path: Path, data: h5py.Group) -> tuple[list[str], list[str]]:
    """List the names of complete episodes by number, and a note for each one that is left out.

    Our writer and LIBERO's script write ``num_samples`` last: in a file that has it, an episode
    without it is what a killed run left.
    """
    names, notes = [], []
    for name in data:
        if not isinstance(name, str) or not DEMO.fullmatch(name):
            notes.append(f'{path}, {one_line(name)}: is left out; episodes are named demo_NUMBER')
        elif not isinstance(data.get(name), h5py.Group):  # None for a link that leads nowhere
            notes.append(f'{path}, {name}: is left out; it is no group, or a link to nothing')
        else:
            names.append(name)
    names.sort(key=lambda name: int(DEMO.fullmatch(name)[1]))
    whole = [name for name in names if 'num_samples' in data[name].attrs]
    if not whole:
        return names, notes
    notes += [
        f'{path}, {name}: is left out; it has no num_samples, which is written last: a run was '
        'killed while it wrote this'
        for name in names
        if name not in whole
    ]
    return whole, notes


def _bottom_up(path: Path, data: h5py.Group, notes: list[str]) -> bool:
    """Whether the first row of the images is the lowest; an assumption is noted."""
    convention = text_attribute(data, 'macros_image_convention')
    if convention is None:
        notes.append(
            f'{path}: has no macros_image_convention; its images are read as opengl, the lowest '
            'row first, as regenerate_libero_dataset.py writes them: look at some of them'
        )
    elif convention not in ('opengl', 'opencv'):
        raise DemonstrationError(
            f'{path}: macros_image_convention is {one_line(convention)!r}; opengl (lowest row '
            'first) or opencv is needed'
        )
    return convention != 'opencv'


def _names(data: h5py.Group, path: Path) -> tuple[str, ...]:
    names = json_attribute(data, 'segmentation_names') or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DemonstrationError(f'{path}: segmentation_names is no JSON list of names')
    return tuple(names)


def _episode(
    path: Path, demo: h5py.Group, name: str, names: tuple[str, ...], common: dict
) -> EpisodeIndex:
    """Check one episode's datasets and read its attributes."""
    place = f'{path}, {name}'
    steps = _shape(demo, 'actions', place, (None, ACTION_SIZE))[0]
    rows = steps
    if 'obs/rows' in demo:
        rows = _shape(demo, 'obs/rows', place, (None,))[0]
        numbers = np.asarray(demo['obs/rows'][()], np.int64)
        if rows and (numbers[0] < 0 or numbers[-1] >= steps or (np.diff(numbers) <= 0).any()):
            raise DemonstrationError(
                f'{place}: obs/rows must ascend from 0 to {steps - 1}; record it again'
            )
    size = _shape(demo, f'obs/{CAMERAS[0]}_rgb', place, (rows, None, None, 3), 'uint8')[1:3]
    _shape(demo, f'obs/{CAMERAS[1]}_rgb', place, (rows, *size, 3), 'uint8')
    _shape(demo, 'obs/ee_states', place, (rows, 6))
    _shape(demo, 'obs/gripper_states', place, (rows, 2))
    if labelled := 'obs/chunks' in demo:
        _shape(demo, 'obs/chunks', place, (rows, CHUNK_LENGTH, ACTION_SIZE))
    segmented = [f'obs/{camera}_segmentation' in demo for camera in CAMERAS]
    if any(segmented):
        for camera in CAMERAS:
            _shape(demo, f'obs/{camera}_segmentation', place, (rows, *size), 'uint8')
        if not names:
            raise DemonstrationError(
                f'{place}: has segmentation, but data has no segmentation_names; record it again'
            )
    return EpisodeIndex(
        **common,
        name=name,
        instruction=_instruction(path, demo),
        steps=steps,
        observations=rows,
        image_size=size,
        labelled=labelled,
        segmentation_names=names if any(segmented) else (),
        goal=tuple(json_attribute(demo, 'goal') or ()),
        policy=text_attribute(demo, 'policy') or '',
        seed=number_attribute(demo, 'seed'),
    )


def _shape(
    demo: h5py.Group, name: str, place: str, wanted: tuple, dtype: str | None = None
) -> tuple[int, ...]:
    """Check a dataset's shape and its type; None allows any length or number type."""
    dataset = demo.get(name)
    if not isinstance(dataset, h5py.Dataset):
        raise DemonstrationError(f'{place}: has no dataset {name}; download or record it again')
    shape = dataset.shape
    fits = len(shape) == len(wanted) and all(
        want is None or have == want for have, want in zip(shape, wanted, strict=True)
    )
    typed = dataset.dtype == dtype if dtype else dataset.dtype.kind in 'fiu'
    if not (fits and typed):
        form = ', '.join('any' if want is None else str(want) for want in wanted)
        raise DemonstrationError(
            f'{place}: {name} is {dataset.dtype} {shape}; {dtype or "numbers"} ({form}) is needed: '
            'download or record it again'
        )
    return shape


def _instruction(path: Path, demo: h5py.Group) -> str:
    """Find what the robot was told: the episode's own instruction, else its file's name.

    The ``language_instruction`` of an official file's ``problem_info`` is another one (``pick the
    akita black bowl …`` instead of ``pick up the black bowl …``, in all tasks of LIBERO-Spatial
    and LIBERO-Object): LIBERO's benchmark asks by the file's name, and OpenVLA trained on that.
    """
    own = text_attribute(demo, 'language_instruction')
    if own is not None:
        instruction = own
    elif path.stem.endswith('_demo'):
        instruction = SCENE.sub('', path.stem.removesuffix('_demo')).replace('_', ' ')
    else:
        problem = json_attribute(demo.parent, 'problem_info')
        instruction = problem.get('language_instruction') if isinstance(problem, dict) else None
        if isinstance(instruction, list):
            instruction = ''.join(map(str, instruction))
    if not isinstance(instruction, str) or not instruction.strip():
        raise DemonstrationError(
            f'{path}, {Path(demo.name).name}: has no instruction; give the file its name in LIBERO '
            'again, such as pick_up_the_milk_and_place_it_in_the_basket_demo.hdf5'
        )
    return instruction.strip()
