"""Frames to train on: observations, instructions and the chunks of actions that follow them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lightvla_ros.contract import ACTION_SIZE
from lightvla_ros.contract.libero import CHUNK_LENGTH, CONTROL_PERIOD
from lightvla_ros.demonstrations.mapping import Mapping

PROPRIO_SIZE = 8
CHUNK_SHAPE = (CHUNK_LENGTH, ACTION_SIZE)
NO_SEGMENTATION = 255  # every pixel of a frame that has none, among others that do


@dataclass(frozen=True)
class Frames:
    """Frames of several episodes in memory, in the order of the episodes and of their rows.

    :param images: uint8 [N, 2, H, W, 3] RGB, upright and not mirrored; third person, then wrist.
    :param proprio: float32 [N, 8]: end effector [m], axis-angle [rad] on the side of
        ``POINTING_DOWN`` (see ``policy/state.py``), two finger joints [m].
    :param chunks: float32 [N, 8, 7] in LIBERO's units: OSC_POSE actions, gripper -1 open, +1
        closed.
    :param instruction: int64 [N], index in ``instructions``.
    :param episode: int64 [N], index in the ``episodes`` of the demonstrations that were loaded.
    :param segmentation: uint8 [N, 2, H, W], index in ``segmentation_names``, or
        ``NO_SEGMENTATION`` throughout a frame; None where no frame has any.
    :param control_period: Seconds between the steps of a chunk.
    :param execution: What a step is to the arm; see ``contract.Action``.
    """

    images: np.ndarray
    proprio: np.ndarray
    chunks: np.ndarray
    instruction: np.ndarray
    episode: np.ndarray
    segmentation: np.ndarray | None
    instructions: tuple[str, ...]
    segmentation_names: tuple[str, ...]
    control_period: float = CONTROL_PERIOD
    execution: str = 'spring'

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class EpisodeIndex:
    """Where an episode lies and what its file says about it, without its frames.

    :param name: Of its group, such as ``demo_3``.
    :param instruction: The instruction of the episode.
    :param order: ``before`` where a row's observation was made before the row's action, else
        ``after``.
    :param steps: Executed actions.
    :param observations: Rendered rows, at most ``steps``.
    :param image_size: Height and width [px] of both cameras.
    :param bottom_up: Whether the images' first row is the lowest (robosuite's ``opengl``).
    :param labelled: Whether the expert's chunks are recorded beside the executed actions.
    :param segmentation_names: The file's, by id; empty where the episode has no segmentation.
    :param goal: Predicate, object, target; empty where the file does not say.
    :param policy: What acted: empty for the expert, else the rolled policy's name or fingerprint.
    :param seed: Of the episode; None where the file does not say.
    :param control_period: Seconds from row to row; ``execution`` as in :class:`Frames`.
    :param mapping: What its recording's names mean; None for LIBERO's layout.
    """

    path: Path
    name: str
    instruction: str
    order: str
    steps: int
    observations: int
    image_size: tuple[int, int]
    bottom_up: bool
    labelled: bool
    segmentation_names: tuple[str, ...] = ()
    suite: str = ''
    task: int | None = None
    render_setting: str = ''
    goal: tuple[str, ...] = ()
    policy: str = ''
    seed: int | None = None
    control_period: float = CONTROL_PERIOD
    execution: str = 'spring'
    mapping: Mapping | None = None

    def __str__(self) -> str:
        return f'{self.path}, {self.name}'
