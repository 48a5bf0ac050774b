"""What a run starts from, and what it learns from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lightvla_ros.train.field_checks import not_one_of, not_positive

BOUNDS = ('kept', 'data', 'robot')
WORDS = ('kept', 'data')


@dataclass(frozen=True)
class ModelSource:
    """Source of the model: a preset with random weights, or an earlier model.

    :param preset: Name of a preset in ``vla.config``, for a model from scratch.
    :param start: A policy folder or the folder of an earlier run (key ``from`` in the file), whose
        weights, tokenizer and statistics are used.
    :param changes: Fields of ``VLAConfig`` to change, nested: ``{language: {layers: 4}}``.
    :param bounds: Bounds of actions and state: ``kept`` uses those of the earlier model, and values
        outside are cut off; ``data`` uses the extremes of the data, and changes the layers beside
        them (``bounds.py``); ``robot`` also takes the contract of the data's robot in place of the
        earlier model's, and leaves the weights as they are.
    :param words: Words of a tokenizer with one token per word: ``kept`` uses those of the earlier
        model, and refuses other ones; ``data`` adds those of the data and its paraphrases, with
        rows of the embeddings that no word has.
    """

    preset: str | None = None
    start: str | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    bounds: str = 'kept'
    words: str = 'kept'

    def problems(self) -> list[str]:
        """Return a line for each invalid field."""
        found = []
        if (self.preset is None) == (self.start is None):
            found.append('preset and from: exactly one of them must be given')
        return found + not_one_of(self, {'bounds': BOUNDS, 'words': WORDS})


@dataclass(frozen=True)
class DataSource:
    """A file or folder of demonstrations.

    :param weight: How often an epoch shows each of its frames; 0.5 shows half of them.
    :param mapping: Data YAML (``demonstrations/mapping.py``); None for files of LIBERO's layout.
    """

    path: str
    weight: float = 1.0
    mapping: str | None = None

    def problems(self) -> list[str]:
        """Return a line for each invalid field."""
        return not_positive(self, ('weight',))


@dataclass(frozen=True)
class Paraphrases:
    """Other words for the requests of the data (``paraphrases.py``).

    :param rules: YAML file of the rules.
    :param share: Share of the frames that are shown with other words.
    """

    rules: str
    share: float = 0.5

    def problems(self) -> list[str]:
        """Return a line for each invalid field."""
        return [] if 0 < self.share <= 1 else [f'share {self.share} is not in (0, 1]']


@dataclass(frozen=True)
class DataConfig:
    """The training data.

    :param paths: List of paths, each with or without a weight.
    :param held_out: Share of the episodes that is never trained on.
    :param held_out_frames: Number of held-out frames that each evaluation uses.
    :param paraphrases: None shows each frame with the words that were recorded.
    """

    paths: tuple[DataSource, ...] = ()
    held_out: float = 0.05
    held_out_frames: int = 128
    paraphrases: Paraphrases | None = None

    def problems(self) -> list[str]:
        """Return a line for each invalid field."""
        found = [f'paths.{problem}' for path in self.paths for problem in path.problems()]
        if not self.paths:
            found.append('paths: give at least one file or folder of demonstrations')
        if not 0 <= self.held_out < 1:
            found.append(f'held_out {self.held_out} is not in [0, 1)')
        if self.paraphrases is not None:
            found += [f'paraphrases.{problem}' for problem in self.paraphrases.problems()]
        return found + not_positive(self, ('held_out_frames',))
