"""What a policy saw and kept during an episode, and which moments tell most of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lightvla_ros.sim.patch_owners import Shares

COLUMNS = 6  # pictures of an episode


@dataclass(frozen=True)
class Moment:
    """One look.

    :param step: Steps done before it.
    :param images: Upright RGB uint8 [H, W, 3], one per camera.
    :param kept: bool [cameras, patches], in the policy's view.
    :param roles: uint8 [cameras, patches], see :class:`PatchOwners`.
    :param acted: Whether a chunk was executed from it. The others are for pictures alone: the
        pruner was asked, but nobody did anything, and they count in no figure.
    """

    step: int
    images: tuple[np.ndarray, ...]
    kept: np.ndarray
    roles: np.ndarray
    acted: bool


@dataclass(frozen=True)
class Events:
    """Steps after which things happened first; None for what did not.

    :param touched: Both fingers touched an object.
    :param lifted: An object was 2 cm above where it had lain.
    :param released: The fingers had let go of it for good.
    """

    touched: int | None = None
    lifted: int | None = None
    released: int | None = None


@dataclass(frozen=True)
class Seen:
    """An episode as it was seen.

    :param total_steps: Steps of the whole episode.
    """

    name: str
    instruction: str
    cameras: tuple[str, ...]
    success: bool
    total_steps: int
    events: Events
    moments: tuple[Moment, ...]

    @property
    def acted(self) -> list[Moment]:
        """The moments from which a chunk was executed."""
        return [moment for moment in self.moments if moment.acted]

    @property
    def shares(self) -> dict[str, Shares]:
        """Patches by role of each camera, over the executed chunks."""
        return shares_of(self.cameras, self.acted)


def shares_of(cameras: tuple[str, ...], moments: list[Moment]) -> dict[str, Shares]:
    """Count patches by role of each camera; there is at least one moment."""
    found = {}
    for index, camera in enumerate(cameras):
        first, *rest = (Shares.of_frame(m.roles[index], m.kept[index]) for m in moments)
        found[camera] = sum(rest, start=first)
    return found


def key_moments(steps: list[int], events: Events) -> list[tuple[str, int]]:
    """Choose moments for pictures: what they show, and their index, in order and each once.

    Where nothing was lifted, they are spread evenly.

    :param steps: Of the moments, ascending.
    """
    last = len(steps) - 1
    if events.touched is None or events.lifted is None:
        spread = np.linspace(0, last, min(COLUMNS, len(steps))).round().astype(int)
        return [('start' if not i else 'end' if i == last else '', int(i)) for i in spread]
    touch = min(events.touched, events.lifted)  # a lift without a touch: by the rim, by one finger
    release = steps[-1] if events.released is None else events.released
    before = max((i for i, step in enumerate(steps) if step < touch), default=0)
    lift = _first_from(steps, events.lifted)
    let_go = _first_from(steps, release)
    chosen = [
        ('start', 0),
        ('approach', _nearest(steps, steps[before] / 2)),
        ('before the grasp', before),
        ('lift', lift),
        ('carry', _nearest(steps, (steps[lift] + steps[let_go]) / 2)),
        ('end' if events.released is None else 'release', let_go),
    ]
    once = {}
    for label, index in chosen:
        if not once or index > max(once):
            once[index] = label
    return [(label, index) for index, label in once.items()]


def _first_from(steps: list[int], step: int) -> int:
    return min(int(np.searchsorted(steps, step)), len(steps) - 1)


def _nearest(steps: list[int], step: float) -> int:
    return int(np.abs(np.array(steps) - step).argmin())
