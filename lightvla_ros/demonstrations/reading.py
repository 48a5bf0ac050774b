"""What episodes hold, read in the :class:`ReadingProcess`, with or without a data YAML.

All episodes of one call lie in one recording.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from lightvla_ros.demonstrations.episode_arrays import (
    Pairs,
    Pictures,
    Signals,
    read_pairs,
    read_pictures,
    read_signals,
)
from lightvla_ros.demonstrations.frames import EpisodeIndex
from lightvla_ros.demonstrations.mapped import (
    read_mapped_pairs,
    read_mapped_pictures,
    read_mapped_signals,
)
from lightvla_ros.demonstrations.reading_process import stream
from lightvla_ros.errors import DemonstrationError


def pairs_of(
    path: Path, episodes: Sequence[EpisodeIndex], drop_noops: bool | None
) -> Iterator[Pairs]:
    """Decide on the frames of episodes, before any image is read."""
    function = read_pairs if episodes[0].mapping is None else read_mapped_pairs
    return stream(function, path, episodes, drop_noops)


def pictures_of(
    path: Path,
    chosen: Sequence[tuple[EpisodeIndex, np.ndarray]],
    masks: bool = False,
    segmentation_names: tuple[str, ...] = (),
) -> Iterator[Pictures | DemonstrationError]:
    """Read images and states at positions of episodes; an error stands for an episode's."""
    if chosen[0][0].mapping is None:
        return stream(read_pictures, path, chosen, masks, segmentation_names)
    return stream(read_mapped_pictures, path, chosen)


def signals_of(path: Path, episodes: Sequence[EpisodeIndex]) -> Iterator[Signals]:
    """Read the numbers of episodes."""
    function = read_signals if episodes[0].mapping is None else read_mapped_signals
    return stream(function, path, episodes)
