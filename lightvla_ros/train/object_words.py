"""The words for the objects in a segmentation, as used in instructions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

IGNORED = 255  # class of a pixel whose object has no words
BACKGROUND, ROBOT = 'background', 'robot'
# Prefixes of the simulator's names; the longest match counts. Every prompt contains 'robot', so a
# patch of the gripper is always selected; the arm is background, as the state describes it fully.
WORDS = {
    'akita_black_bowl': 'black bowl',
    'alphabet_soup': 'alphabet soup',
    'basket': 'basket',
    'bbq_sauce': 'bbq sauce',
    'butter': 'butter',
    'chocolate_pudding': 'chocolate pudding',
    'cookies': 'cookie box',
    'cream_cheese': 'cream cheese',
    'flat_stove': 'stove',
    'glazed_rim_porcelain_ramekin': 'ramekin',
    'gripper': 'robot',
    'ketchup': 'ketchup',
    'milk': 'milk',
    'orange_juice': 'orange juice',
    'plate': 'plate',
    'robot': BACKGROUND,
    'salad_dressing': 'salad dressing',
    'tomato_sauce': 'tomato sauce',
    'wooden_cabinet': 'wooden cabinet',
}


@dataclass(frozen=True)
class ObjectClasses:
    """The object classes in the segmentations of all data.

    :param words: Words of each class; class 0 is :data:`BACKGROUND`.
    :param instances: Names of single objects in all sources; two bowls are two instances.
    :param tables: For each source of data uint8 [256]: its segmentation value -> instance, or
        :data:`IGNORED`.
    :param of_instance: uint8 [256], the class of each instance, or :data:`IGNORED`.
    :param unknown: Names without words, whose class is :data:`IGNORED`.
    """

    words: tuple[str, ...]
    instances: tuple[str, ...]
    tables: tuple[np.ndarray, ...]
    of_instance: np.ndarray
    unknown: tuple[str, ...]

    def named_in(self, instruction: str) -> np.ndarray:
        """Return which classes an instruction names: bool [classes]."""
        text = f' {" ".join(instruction.lower().split())} '
        named = [word != ROBOT and f' {word} ' in text for word in self.words]
        return np.array([False, *named[1:]])


def object_classes(
    sources: Sequence[Sequence[str]], more: Mapping[str, str] | None = None
) -> ObjectClasses:
    """Find the classes of all names.

    :param sources: The segmentation names of each source; value 0 is the background.
    :param more: Words for further prefixes of names; they override :data:`WORDS`.
    """
    table = WORDS | dict(more or {})
    found = {name: _words(name, table) for names in sources for name in names[1:]}
    words = (BACKGROUND, *sorted(set(found.values()) - {None, BACKGROUND}))
    instances = (BACKGROUND, *sorted(found))
    of_instance = np.full(256, IGNORED, np.uint8)
    of_instance[0] = 0
    for index, name in enumerate(instances[1:], 1):
        if found[name] is not None:
            of_instance[index] = words.index(found[name])
    tables = []
    for names in sources:
        values = np.full(256, IGNORED, np.uint8)
        values[: len(names)] = [0, *(instances.index(name) for name in names[1:])]
        tables.append(values)
    unknown = tuple(sorted(name for name, each in found.items() if each is None))
    return ObjectClasses(words, instances, tuple(tables), of_instance, unknown)


def _words(name: str, table: Mapping[str, str]) -> str | None:
    fitting = [beginning for beginning in table if name.startswith(beginning)]
    return table[max(fitting, key=len)] if fitting else None
