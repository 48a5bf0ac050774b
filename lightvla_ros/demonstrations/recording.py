"""What every recording gives, whatever its format: columns of numbers and pictures, by own names.

A row is one control period. A recording is opened in the :class:`ReadingProcess`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Column:
    """Numbers of one name.

    :param values: float64 [T, n].
    :param labels: Names of the n numbers, where the recording has any.
    """

    values: np.ndarray
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recorded:
    """An episode of T rows, without its pictures.

    :param instruction: Empty where the recording has none.
    :param states: Measured numbers, by name.
    :param actions: Commands, by name.
    :param stamps: float64 [T] seconds, ascending; None where the recording has none.
    :param observed: int64 [R], ascending: the rows of which there are pictures.
    :param sizes: Height and width [px] of the pictures as recorded, by name.
    """

    instruction: str
    states: Mapping[str, Column]
    actions: Mapping[str, Column]
    stamps: np.ndarray | None
    observed: np.ndarray
    sizes: Mapping[str, tuple[int, int]]


class Recording(Protocol):
    """An open recording."""

    def names(self) -> Sequence[str]:
        """Return the names of its episodes, in their order."""

    def read(self, name: str) -> Recorded:
        """Read an episode's numbers.

        :raises DemonstrationError: When that episode cannot be used; it names what is wrong.
        """

    def pictures(self, name: str, camera: str, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Yield a camera's pictures of some rows, ascending: uint8 [H, W, 3] RGB, as recorded.

        :raises DemonstrationError: When one is missing or cannot be decoded.
        """
