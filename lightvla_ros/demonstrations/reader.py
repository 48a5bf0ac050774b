"""Reading demonstrations: LIBERO's files, and with a data YAML those of any robot."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lightvla_ros.demonstrations.frames import NO_SEGMENTATION, EpisodeIndex, Frames
from lightvla_ros.demonstrations.index import FileIndex, index_file
from lightvla_ros.demonstrations.lerobot import is_lerobot
from lightvla_ros.demonstrations.loader import load_frames
from lightvla_ros.demonstrations.mapped import index_mapped
from lightvla_ros.demonstrations.mapping import Mapping
from lightvla_ros.demonstrations.observation_order import ORDERS
from lightvla_ros.demonstrations.reading_process import stream
from lightvla_ros.demonstrations.rosbag import bags_in
from lightvla_ros.errors import DamagedFileError, DemonstrationError

LOG = logging.getLogger(__name__)
BACKGROUND = 'background'


@dataclass(frozen=True)
class Demonstrations:
    """Episodes of one or several files: an index, from which frames are loaded.

    :param instructions: All distinct instructions. Parts that :meth:`hold_out` makes share them, so
        that an index means the same in all.
    :param segmentation_names: Of all files together, by the id in :class:`Frames`.
    :param notes: One line for whatever was left out or assumed; the log has them, too.
    """

    episodes: tuple[EpisodeIndex, ...]
    instructions: tuple[str, ...]
    segmentation_names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.episodes)

    def load(
        self,
        episodes: Sequence[int] | None = None,
        drop_noops: bool | None = None,
        segmentation: bool = True,
        progress: bool = True,
    ) -> Frames:
        """Load all frames of episodes into memory (98 kB each at 128 px, segmentation 33 kB more).

        :param episodes: Indices in ``episodes``; None loads all.
        :param drop_noops: Whether steps that do nothing are left out before chunks are cut (see
            :func:`~lightvla_ros.demonstrations.pairs.moving_steps`); None: as the mapping says,
            else in files of LIBERO's own order. Episodes with recorded chunks keep all their rows.
        :param segmentation: Whether to load it where there is any.
        :raises DemonstrationError: When there is nothing to load, or data are damaged.
        :raises IndexError: When there is no such episode.
        """
        chosen = range(len(self.episodes)) if episodes is None else episodes
        return load_frames(
            [(index, self.episodes[index]) for index in map(int, chosen)],
            self.instructions,
            self.segmentation_names,
            drop_noops,
            segmentation,
            progress,
        )

    def hold_out(self, fraction: float, seed: int = 0) -> tuple[Demonstrations, Demonstrations]:
        """Split by episode; where there are two or more, each part gets at least one.

        Each episode's lot is drawn from the seed, its file's name and its own. It does not change
        when files are added or moved, so that nothing once held out is ever trained on later; the
        fraction is met only about.

        :param fraction: Held out, above 0 and below 1.
        :returns: The part to train on and the part held out.
        :raises ValueError: When the fraction is out of range.
        """
        if not 0 < fraction < 1:
            raise ValueError(
                f'the fraction to hold out must be above 0 and below 1, not {fraction}'
            )
        lots = [_lot(episode, seed) for episode in self.episodes]
        held = {index for index, lot in enumerate(lots) if lot < fraction}
        order = sorted(range(len(lots)), key=lots.__getitem__)
        if len(order) > 1:
            held = (held | {order[0]}) - {order[-1]}
        return tuple(
            replace(
                self, episodes=tuple(e for i, e in enumerate(self.episodes) if (i in held) == h)
            )
            for h in (False, True)
        )


def read_demonstrations(
    paths: str | Path | Iterable[str | Path],
    order: str | None = None,
    mapping: Mapping | None = None,
) -> Demonstrations:
    """Index files of demonstrations; no image is read before :meth:`Demonstrations.load`.

    :param paths: Files, or folders that are searched at any depth: for ``*.hdf5``, or for what the
        mapping's format is.
    :param order: ``before`` or ``after`` when a row's observation was made; for all files. None
        finds out for each (see ``observation_order.py``). A mapping has its own.
    :param mapping: What the recording's own names mean; None reads LIBERO's layout.
    :raises DemonstrationError: When there are no files, none can be read, one is foreign or
        incomplete, or images differ in size. Of several files those that cannot be read are left
        out; the log names them, and whatever else is left out or assumed.
    """
    if order is not None and order not in ORDERS:
        raise DemonstrationError(f'order is {order!r}; choose one of {ORDERS}, or None to find out')
    if mapping is None:
        episodes, notes = _index(_files(paths, 'hdf5'), index_file, order)
    else:
        episodes, notes = _index(_files(paths, mapping.format), index_mapped, mapping)
    first = episodes[0]
    for episode in episodes:
        if episode.image_size != first.image_size:
            raise DemonstrationError(
                f'{episode}: images of {_size(episode)}, but {first} has {_size(first)}; read them '
                'as two sets'
            )
    names = dict.fromkeys([BACKGROUND])
    for episode in episodes:
        names |= dict.fromkeys(episode.segmentation_names)
    if len(names) > NO_SEGMENTATION:
        raise DemonstrationError(
            f'{len(names)} segmentation names in all; at most {NO_SEGMENTATION} can be told apart: '
            'read fewer files at once'
        )
    return Demonstrations(
        episodes=tuple(episodes),
        instructions=tuple(dict.fromkeys(episode.instruction for episode in episodes)),
        segmentation_names=tuple(names) if len(names) > 1 else (),
        notes=tuple(notes),
    )


def _index(
    files: list[Path], function: Callable[..., Iterator[FileIndex]], argument: object
) -> tuple[list[EpisodeIndex], list[str]]:
    """Index recordings; return their episodes, and what was left out or assumed."""
    episodes: list[EpisodeIndex] = []
    notes: list[str] = []
    damaged: list[DamagedFileError] = []
    for path in files:
        try:
            for index in stream(function, path, argument):
                episodes += index.episodes
                notes += index.notes
        except DamagedFileError as error:
            damaged.append(error)
    if not episodes:
        raise damaged[0] if damaged else DemonstrationError(_none_left(files, notes))
    notes += [f'{error}; it is left out, and the other files are read' for error in damaged]
    for note in notes:
        LOG.warning(note)
    return episodes, notes


def _none_left(files: list[Path], notes: list[str]) -> str:
    more = f', and {len(notes) - 1} more like it' if len(notes) > 1 else ''
    return f'{notes[0]}{more}: no episode is left' if notes else f'{files[0]}: has no episodes'


def _files(paths: str | Path | Iterable[str | Path], form: str) -> list[Path]:
    """List the recordings, sorted, each once.

    :param form: One of ``mapping.FORMATS``.
    """
    found: set[Path] = set()
    paths = [paths] if isinstance(paths, str | Path) else list(paths)
    for path in map(Path, paths):
        if path.is_dir():
            inside = set(_RECORDINGS[form][1](path))
            if not inside:
                raise DemonstrationError(
                    f'{path}: no {_RECORDINGS[form][0]} in this folder; name another'
                )
            found |= inside
        elif path.is_file():
            found.add(path)
        else:
            raise DemonstrationError(f'{path}: there is no such file or folder')
    if not found:
        raise DemonstrationError('no files of demonstrations were named; name a file or a folder')
    return sorted(found)


def _lerobot_in(folder: Path) -> list[Path]:
    if is_lerobot(folder):
        return [folder]
    return [file.parents[1] for file in folder.rglob('info.json') if is_lerobot(file.parents[1])]


_RECORDINGS: dict[str, tuple[str, Callable[[Path], Iterable[Path]]]] = {
    'hdf5': ('*.hdf5', lambda folder: folder.rglob('*.hdf5')),
    'lerobot': ('LeRobot data set (meta/info.json)', _lerobot_in),
    'rosbag': ('bag (metadata.yaml, *.mcap or *.db3)', bags_in),
}


def _size(episode: EpisodeIndex) -> str:
    height, width = episode.image_size
    return f'{width} x {height} px'


def _lot(episode: EpisodeIndex, seed: int) -> float:
    """Draw a number from 0 to 1."""
    digest = hashlib.sha256(f'{seed}/{episode.path.name}/{episode.name}'.encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64
