"""The frames of all sources in memory, by row number, and the choice of frames for each step."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lightvla_ros.contract.libero import LIBERO
from lightvla_ros.contract.robot import Robot, difference
from lightvla_ros.demonstrations.frames import Frames
from lightvla_ros.demonstrations.mapping import read_mapping
from lightvla_ros.demonstrations.reader import read_demonstrations
from lightvla_ros.errors import TrainError
from lightvla_ros.train.config_sources import DataConfig
from lightvla_ros.train.object_words import IGNORED, ObjectClasses, object_classes
from lightvla_ros.train.paraphrases import read_rules

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gathered:
    """Frames copied from the store.

    :param images: uint8 [B, cameras, H, W, 3].
    :param instances: uint8 [B, cameras, H, W], of ``FrameStore.classes``; None if not requested.
    :param instruction: int64 [B], an index into ``FrameStore.instructions``.
    """

    images: np.ndarray
    instances: np.ndarray | None
    instruction: np.ndarray


class FrameStore:
    """Frames of several sources; images are not copied, the small arrays are concatenated.

    :param sources: At least one, with images of one size.
    :param words: See :func:`object_classes`.
    :raises TrainError: When the images differ in size, or the contracts of their robots do.
    """

    def __init__(self, sources: Sequence[Frames], words: Mapping[str, str] | None = None) -> None:
        self._sources = list(sources)
        shapes = {each.images.shape[1:] for each in sources}
        if len(shapes) != 1:
            raise TrainError(f'demonstrations have images of different sizes: {sorted(shapes)}')
        self.image_shape = shapes.pop()  # cameras, H, W, 3
        self.robot = sources[0].robot
        for each in sources:
            if each.robot != self.robot:
                raise TrainError(
                    f'demonstrations are of different robots: {difference(self.robot, each.robot)}'
                )
        self._starts = np.cumsum([0, *(len(each.images) for each in sources)])
        self.proprio = np.concatenate([each.proprio for each in sources])
        self.chunks = np.concatenate([each.chunks for each in sources])
        self.instructions = sorted({text for each in sources for text in each.instructions})
        number = {text: index for index, text in enumerate(self.instructions)}
        self.instruction = np.concatenate(
            [
                np.array([number[text] for text in each.instructions], np.int64)[each.instruction]
                for each in sources
            ]
        )
        self.classes: ObjectClasses | None = None
        if any(each.segmentation is not None for each in sources):
            self.classes = object_classes([each.segmentation_names for each in sources], words)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def rows(self, source: int) -> np.ndarray:
        """Return the row numbers int64 of a source's frames."""
        return np.arange(self._starts[source], self._starts[source + 1])

    def gather(self, rows: np.ndarray, instances: bool) -> Gathered:
        """Copy the images of some rows, and the instances of their pixels if requested."""
        images = np.empty((len(rows), *self.image_shape), np.uint8)
        shown = None
        if instances and self.classes is not None:
            shown = np.full(images.shape[:-1], IGNORED, np.uint8)
        source = np.searchsorted(self._starts, rows, side='right') - 1
        for index in np.unique(source):
            here = np.flatnonzero(source == index)
            local = rows[here] - self._starts[index]
            frames = self._sources[index]
            images[here] = frames.images[local]
            if shown is not None and frames.segmentation is not None:
                shown[here] = self.classes.tables[index][frames.segmentation[local]]
        return Gathered(images, shown, self.instruction[rows])


@dataclass(frozen=True)
class Data:
    """Training and evaluation data of a run.

    :param training: Row numbers of the training frames of each path.
    :param weights: Weight of each path.
    :param held_out: Row numbers of the held-out frames of all paths.
    :param mappings: Content of the data YAML of each path that has one, and of the rules of
        paraphrases, by file or path.
    """

    store: FrameStore
    training: tuple[np.ndarray, ...]
    weights: tuple[float, ...]
    held_out: np.ndarray
    mappings: Mapping[str, dict[str, Any]] = field(default_factory=dict)


def load_data(
    config: DataConfig, words: Mapping[str, str], segmentation: bool, progress: bool = True
) -> Data:
    """Read demonstrations into memory.

    The choice of held-out episodes does not depend on the run's seed, so that episodes held out
    from a base are also held out from its fine-tuning.

    :param words: See :func:`object_classes`.
    :param segmentation: Whether to load the segmentation of training frames, if there is any; that
        of held-out frames is always loaded.
    :raises ConfigError: When a data YAML is invalid.
    :raises DemonstrationError: When a file cannot be read.
    :raises TrainError: When the sources do not fit together.
    """
    sources, training, held_out = [], [], []
    mappings = {}
    if config.paraphrases is not None:
        rules = config.paraphrases.rules
        mappings[rules] = asdict(read_rules(Path(rules)))
    for source in config.paths:
        mapping = None
        if source.mapping is not None:
            mapping = read_mapping(source.mapping)
            mappings[source.path] = asdict(mapping)
        parts = [(training, read_demonstrations(source.path, mapping=mapping))]
        if config.held_out and len(parts[0][1]) == 1:
            LOG.warning('%s: is one episode, so none of it is held out', source.path)
        elif config.held_out:
            kept, held = parts[0][1].hold_out(config.held_out)
            parts = [(training, kept)] + ([(held_out, held)] if len(held) else [])
        for group, part in parts:
            group.append(len(sources))
            wanted = segmentation or group is held_out
            sources.append(part.load(segmentation=wanted, progress=progress))
    store = FrameStore(sources, words)
    _tell_unseen_words(store, training, held_out)
    held = [store.rows(index) for index in held_out]
    return Data(
        store,
        tuple(store.rows(index) for index in training),
        tuple(source.weight for source in config.paths),
        np.concatenate(held) if held else np.empty(0, np.int64),
        mappings,
    )


def _tell_unseen_words(store: FrameStore, training: list[int], held_out: list[int]) -> None:
    """Name the words that the held-out instructions alone have: a policy cannot learn them."""
    words = [
        {
            word
            for source in sources
            for index in np.unique(store.instruction[store.rows(source)])
            for word in store.instructions[index].lower().split()
        }
        for sources in (training, held_out)
    ]
    if unseen := sorted(words[1] - words[0]):
        LOG.warning(
            'no training frame has the words %s, which held-out instructions have: what is '
            'measured on those says little, and the policy will not know them',
            ', '.join(unseen),
        )


def robot_of(config: DataConfig) -> Robot:
    """Return the contract of the robot that the first path was recorded on, without its data.

    LIBERO's stands for a data YAML that is not there yet.

    :raises ConfigError: When a data YAML is invalid.
    """
    mapping = config.paths[0].mapping
    if mapping is None or not Path(mapping).exists():
        return LIBERO
    return read_mapping(mapping).contract


class Sampler:
    """Chooses the frames of each step, in epochs of seeded permutations.

    The choice depends only on seed and step, so a resumed run needs no stored state.

    :param groups: Row numbers int64 [n] of each group of frames.
    :param weights: How often an epoch shows each frame of a group; for the fractional part each
        epoch draws a new random share of the group.
    :param batch: Frames of one step, of all processes and accumulations together.
    """

    def __init__(
        self, groups: Sequence[np.ndarray], weights: Sequence[float], batch: int, seed: int
    ) -> None:
        self._groups, self._weights = list(groups), list(weights)
        self.batch, self._seed = batch, seed
        self.epoch_frames = sum(
            round(weight * len(group)) for group, weight in zip(groups, weights, strict=True)
        )
        self._epoch: tuple[int, np.ndarray] | None = None

    def rows(self, step: int) -> np.ndarray:
        """Return the row numbers int64 [batch] of a step, which may reach into the next epoch."""
        first, parts, missing = step * self.batch, [], self.batch
        while missing:
            epoch, offset = divmod(first, self.epoch_frames)
            part = self._permutation(epoch)[offset : offset + missing]
            parts.append(part)
            first, missing = first + len(part), missing - len(part)
        return np.concatenate(parts)

    def _permutation(self, epoch: int) -> np.ndarray:
        if self._epoch is None or self._epoch[0] != epoch:
            random = np.random.default_rng([self._seed, epoch])
            shown = []
            for group, weight in zip(self._groups, self._weights, strict=True):
                whole, rest = divmod(round(weight * len(group)), max(len(group), 1))
                shown += [group] * whole
                shown.append(random.permutation(group)[:rest])
            self._epoch = epoch, random.permutation(np.concatenate(shown))
        return self._epoch[1]


def step_seed(seed: int, step: int, rank: int = 0, part: int = 0) -> int:
    """Return the seed of all random numbers of one step of one process."""
    return int(np.random.SeedSequence([seed, step, rank, part]).generate_state(1, np.uint64)[0])
