"""Faults that are planted into recorded observations, by arithmetic on their pictures and texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from lightvla_ros.policy.observation import Observation

Fault = Callable[[Observation], Observation]
COVERED = (6.0, 2.0)  # mean and standard deviation of a dark sensor's noise [grey levels]
FINGER = (150, 80, 70)  # RGB of what covers a part of the lens
WARM = (1.15, 1.0, 0.7)  # gains of red, green and blue


def planted_faults(camera: str, instructions: tuple[str, ...]) -> dict[str, Fault]:
    """Return functions that plant a fault into a copy of an observation, by what they plant.

    :param camera: The camera that is turned and covered; light and instruction have no camera.
    :param instructions: All instructions of the recordings, sorted; wrong ones are taken from
        them, if there is another one.
    """
    one = lambda change: lambda seen: _with_images(seen, {camera: change(seen.images[camera])})  # noqa: E731
    wrong, half = {}, len(instructions) // 2
    if len(instructions) > 1:
        wrong['wrong instruction, the next by name'] = _told(instructions, 1)
    if half > 1:  # else that is the next one, too
        wrong['wrong instruction, half the list away'] = _told(instructions, half)
    return {
        f'{camera} turned by 180 degrees': one(lambda image: image[::-1, ::-1]),
        f'{camera} turned by 90 degrees': one(np.rot90),
        f'{camera} covered': one(_covered),
        f'a third of {camera} covered': one(_partly_covered),
        **wrong,
        'light: 0.6 times': _lit((0.6, 0.6, 0.6)),
        'light: 1.5 times': _lit((1.5, 1.5, 1.5)),
        'light: warm': _lit(WARM),
    }


def _with_images(seen: Observation, images: Mapping[str, np.ndarray]) -> Observation:
    changed = {name: np.ascontiguousarray(image) for name, image in images.items()}
    return replace(seen, images={**seen.images, **changed})


def _covered(image: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(int(image[::16, ::16].sum())).normal(*COVERED, image.shape)
    return np.clip(np.rint(noise), 0, 255).astype(np.uint8)


def _partly_covered(image: np.ndarray) -> np.ndarray:
    covered = image.copy()
    covered[:, : image.shape[1] // 3] = FINGER
    return covered


def _told(instructions: tuple[str, ...], step: int) -> Fault:
    def plant(seen: Observation) -> Observation:
        at = instructions.index(seen.instruction) + step
        return replace(seen, instruction=instructions[at % len(instructions)])

    return plant


def _lit(gains: tuple[float, float, float]) -> Fault:
    def plant(seen: Observation) -> Observation:
        lit = {
            name: np.clip(np.rint(image * np.array(gains)), 0, 255).astype(np.uint8)
            for name, image in seen.images.items()
        }
        return _with_images(seen, lit)

    return plant
