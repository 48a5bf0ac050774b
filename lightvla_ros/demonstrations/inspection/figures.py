"""Rates, ranges and statistics of episodes, and some of their pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from lightvla_ros.contract.robot import Robot
from lightvla_ros.demonstrations.episode_arrays import Signals
from lightvla_ros.demonstrations.frames import EpisodeIndex
from lightvla_ros.demonstrations.pairs import moving_steps
from lightvla_ros.demonstrations.reading import pictures_of, signals_of
from lightvla_ros.errors import DemonstrationError

SHOWN = 6  # episodes of which pictures are looked at, spread over all
MOMENTS = 6  # of each
STATES = ('x', 'y', 'z', 'rx', 'ry', 'rz', 'finger 1', 'finger 2')
ACTIONS = ('x', 'y', 'z', 'rx', 'ry', 'rz', 'gripper')
STATE_UNITS = ('m', 'm', 'm', 'rad', 'rad', 'rad', 'm', 'm')
ACTION_UNITS = ('m', 'm', 'm', 'rad', 'rad', 'rad', '0 open, 1 closed')
LAGS = (-2, -1, 0, 1, 2)
BINS = 10


@dataclass(frozen=True)
class Shown:
    """Pictures of an episode.

    :param rows: int64 [N].
    :param images: uint8 [N, cameras, H, W, 3].
    """

    episode: EpisodeIndex
    rows: np.ndarray
    images: np.ndarray


@dataclass(frozen=True)
class Inspection:
    """What was found in demonstrations.

    :param signals: Of each episode, in their order.
    :param states: Of all observed rows, float64 [N, 8], in metres and radians; fingers are NaN
        where the contract has none.
    :param actions: Of all steps, float64 [M, 7], in metres and radians; 0 open, 1 closed.
    :param missing: Rows without pictures, of each episode.
    :param still: Share of steps that do nothing.
    :param by_lag: By lag: how alike the changes of steps and of the arm's motion are, -1 to 1; at
        a lag of 1 the motion is compared with the step after the one that it should answer. 0 where
        no rows are neighbours.
    :param agreement: How alike steps and motion are, -1 to 1.
    :param gain: How far the arm moved for each metre of its steps.
    :param shown: Pictures of some episodes; ``unread`` says which could not be decoded.
    """

    episodes: tuple[EpisodeIndex, ...]
    signals: tuple[Signals, ...]
    states: np.ndarray
    actions: np.ndarray
    missing: tuple[int, ...]
    still: float
    by_lag: dict[int, float]
    agreement: float
    gain: float
    shown: tuple[Shown, ...]
    unread: tuple[str, ...]

    @property
    def robot(self) -> Robot:
        """The contract of the robot that was recorded."""
        return self.episodes[0].robot


def inspect(episodes: Sequence[EpisodeIndex]) -> Inspection:
    """Read the numbers of all episodes, and pictures of some.

    :raises DemonstrationError: When numbers cannot be read.
    """
    signals = [
        each
        for path, group in groupby(episodes, lambda episode: episode.path)
        for each in signals_of(path, list(group))
    ]
    actions = np.concatenate([each.actions for each in signals])
    units = episodes[0].robot.action  # one recording, so one robot
    actions[:, :3] *= units.translation_scale
    actions[:, 3:6] *= units.rotation_scale
    actions[:, 6] = np.concatenate([each.closed for each in signals])
    moving = sum(len(moving_steps(each.actions)) for each in signals)
    found = list(_pictures(episodes, signals))
    by_lag, agreement, gain = _following(episodes, signals)
    return Inspection(
        tuple(episodes),
        tuple(signals),
        np.concatenate([each.states for each in signals]),
        actions,
        tuple(_missing(each) for each in signals),
        1 - moving / max(len(actions), 1),
        by_lag,
        agreement,
        gain,
        tuple(each for each in found if isinstance(each, Shown)),
        tuple(str(each) for each in found if not isinstance(each, Shown)),
    )


def _missing(signals: Signals) -> int:
    """Count the rows between the first and the last observed one that have no pictures."""
    return int(signals.observed[-1] - signals.observed[0] + 1 - len(signals.observed))


def _pictures(
    episodes: Sequence[EpisodeIndex], signals: Sequence[Signals]
) -> Iterator[Shown | DemonstrationError]:
    for index in dict.fromkeys(np.linspace(0, len(episodes) - 1, SHOWN).astype(int).tolist()):
        episode = episodes[index]
        count = min(MOMENTS, episode.observations)
        positions = np.unique(np.linspace(0, episode.observations - 1, count).astype(np.int64))
        for pictures in pictures_of(episode.path, [(episode, positions)]):
            if isinstance(pictures, DemonstrationError):
                yield pictures
            else:
                yield Shown(episode, signals[index].observed[positions], pictures.images)


def _following(
    episodes: Sequence[EpisodeIndex], signals: Sequence[Signals]
) -> tuple[dict[int, float], float, float]:
    """Compare steps with the motion between the rows that they lead from and to."""
    by_lag, agreement, gain = {}, 0.0, 0.0
    for lag in LAGS:
        pairs = [_ways(episode, each, lag) for episode, each in zip(episodes, signals, strict=True)]
        if lag == 0:
            steps, motion = (np.concatenate(part).ravel() for part in zip(*pairs, strict=True))
            agreement = _cosine(steps, motion)
            gain = float(steps @ motion / (steps @ steps)) if steps.any() else 0.0
        # Motions in a row are alike; their changes tell one lag from the next. Rows that are not
        # neighbours smear them.
        changes = [
            [np.diff(part, axis=0) for part in pair]
            for pair, each in zip(pairs, signals, strict=True)
            if (np.diff(each.observed) == 1).all() and len(pair[0]) > 1
        ]
        by_lag[lag] = 0.0
        if changes:
            parts = (np.concatenate(part).ravel() for part in zip(*changes, strict=True))
            by_lag[lag] = _cosine(*parts)
    return by_lag, agreement, gain


def _ways(episode: EpisodeIndex, signals: Signals, lag: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums of steps between observed rows, and the motion between them, both [N, 3]."""
    steps = signals.actions[:, :3] * episode.robot.action.translation_scale
    sums = np.cumsum(np.vstack([np.zeros(3), steps]), axis=0)
    # after row j comes action j, where observations are made before actions
    rows = signals.observed + (episode.order == 'after') + lag
    inside = (rows[:-1] >= 0) & (rows[1:] < len(sums))
    motion = np.diff(signals.states[:, :3], axis=0)[inside]
    return sums[rows[1:][inside]] - sums[rows[:-1][inside]], motion


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    size = np.linalg.norm(one) * np.linalg.norm(other)
    # what is smaller than a micrometre is rounding
    return float(one @ other / size) if min(np.abs(one).max(), np.abs(other).max()) > 1e-6 else 0.0
