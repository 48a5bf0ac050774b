"""Frames to train on: observations, instructions and the chunks of actions that follow them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lightvla_ros.contract.libero import LIBERO
from lightvla_ros.contract.robot import Robot
from lightvla_ros.demonstrations.mapping import Mapping

NO_SEGMENTATION = 255  # every pixel of a frame that has none, among others that do


@dataclass(frozen=True)
class Frames:
    """Frames of several episodes in memory, in the order of the episodes and of their rows.

    :param images: uint8 [N, cameras, H, W, 3] RGB, as the robot's drivers publish them (upright
        and not mirrored), in the order of the contract.
    :param proprio: float32 [N, S] in the contract's layout: end effector [m], axis-angle [rad] on
        the side of the contract's ``quaternion_reference``, two finger joints [m].
    :param chunks: float32 [N, chunk length, 7] in the contract's units; gripper -1 open, +1 closed.
    :param instruction: int64 [N], index in ``instructions``.
    :param episode: int64 [N], index in the ``episodes`` of the demonstrations that were loaded.
    :param segmentation: uint8 [N, cameras, H, W], index in ``segmentation_names``, or
        ``NO_SEGMENTATION`` throughout a frame; None where no frame has any.
    :param robot: The contract of the robot that they were recorded on.
    """

    images: np.ndarray
    proprio: np.ndarray
    chunks: np.ndarray
    instruction: np.ndarray
    episode: np.ndarray
    segmentation: np.ndarray | None
    instructions: tuple[str, ...]
    segmentation_names: tuple[str, ...]
    robot: Robot = LIBERO

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
    :param image_size: Height and width [px] of all cameras.
    :param bottom_up: Whether the images' first row is the lowest (robosuite's ``opengl``).
    :param labelled: Whether the expert's chunks are recorded beside the executed actions.
    :param segmentation_names: The file's, by id; empty where the episode has no segmentation.
    :param goal: Predicate, object, target; empty where the file does not say.
    :param policy: What acted: empty for the expert, else the rolled policy's name or fingerprint.
    :param seed: Of the episode; None where the file does not say.
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
    mapping: Mapping | None = None

    @property
    def robot(self) -> Robot:
        """The contract of the robot that it was recorded on."""
        return LIBERO if self.mapping is None else self.mapping.contract

    def __str__(self) -> str:
        return f'{self.path}, {self.name}'
