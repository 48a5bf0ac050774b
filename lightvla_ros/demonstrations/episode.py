"""One recorded episode: where it lies and what its file says about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Episode:
    """An episode in a file, without its frames.

    :param name: Of its group, such as ``demo_3``.
    :param instruction: What the robot was told.
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

    def __str__(self) -> str:
        return f'{self.path}, {self.name}'
