"""Batches of demonstration frames for training and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lightvla_ros.contract import Manifest
from lightvla_ros.demonstrations.statistics import normalise_actions, normalise_states
from lightvla_ros.errors import ConfigError, TrainError
from lightvla_ros.train.alignment import NO_LABEL, patch_labels, patch_places
from lightvla_ros.train.config import TrainConfig
from lightvla_ros.train.data import Data, Gathered
from lightvla_ros.train.losses import Batch
from lightvla_ros.train.measurements import places_of
from lightvla_ros.train.object_words import ObjectClasses
from lightvla_ros.train.paraphrases import all_texts
from lightvla_ros.train.prompts import PromptTable, word_ids
from lightvla_ros.train.recolour import recolour, things
from lightvla_ros.train.tower_features import TowerFeatures
from lightvla_ros.train.views import Viewer, Views

FREQUENCY_FRAMES = 2048  # frames from which the frequency of each object in patches is estimated


class Batches:
    """Batches of a run's frames, on the CPU.

    If ``features`` is set to the towers' features, batches hold those instead of pixels.

    :param data: The run's frames; ``manifest`` and ``tokenizer`` (a path) are the policy's.
    :param viewer: Turns images into the towers' inputs.
    :raises TrainError: When the policy cannot read an instruction, or things are to be recoloured
        in frames without segmentation.
    :raises ConfigError: When ``proprio_noise`` has another length than the state.
    """

    def __init__(
        self, data: Data, viewer: Viewer, manifest: Manifest, tokenizer: Path, config: TrainConfig
    ) -> None:
        self._data, self._store = data, data.store
        self._viewer, self._config = viewer, config
        self._tokenizer, self._lowercase = tokenizer, manifest.prompt.lowercase
        self._patch_size = manifest.tokens.patch_size
        said = config.data.paraphrases
        texts = all_texts(data.store.instructions, said)
        self._prompts = PromptTable(texts, manifest.prompt, tokenizer)
        self._share = 0.0 if said is None else said.share
        self.targets = torch.from_numpy(normalise_actions(data.store.chunks, manifest.action))
        self._proprio: Tensor | None = None
        if manifest.proprio is not None:
            states = normalise_states(data.store.proprio, manifest.proprio, data.store.robot.layout)
            self._proprio = torch.from_numpy(states)
        self._proprio_noise = _normalised_noise(config, manifest)
        self._things: Tensor | None = None
        if config.augment.things:
            self._things = things(self._classes('augment.things'))
        self.features: TowerFeatures | None = None

    def training(self, rows: np.ndarray) -> Batch:
        """Return frames by row numbers int64 [B], augmented with the global random generator."""
        config = self._config
        frames = recorded = self._store.gather(rows, instances=config.segmentation_used)
        if self._things is not None:
            share = config.augment.things
            images = recolour(recorded.images, recorded.instances, self._things, share)
            # only alignment needs to know what each patch shows
            shown = recorded.instances if config.alignment.used else None
            frames = replace(recorded, images=images, instances=shown)
        batch = self._batch(rows, frames, self._viewer.training, self._share)
        if config.learn == 'tokens':
            plain = self._viewer.evaluation(recorded.images).pixels
            batch = replace(batch, plain=plain)
        if batch.proprio is not None:
            proprio, dropout = batch.proprio, config.proprio_dropout
            if self._proprio_noise is not None:
                proprio += self._proprio_noise * torch.randn(proprio.shape)
            if dropout:
                proprio *= torch.rand(len(proprio), 1) >= dropout
        return batch

    def held_out(self) -> Iterator[tuple[Batch, Tensor | None]]:
        """Yield the same frames at every evaluation, in any run on the same data.

        Each batch comes with the places of its patches (``measurements.places_of``), or None
        without labels.
        """
        rows, size = self._data.held_out, self._config.batch_size
        count = min(len(rows), self._config.data.held_out_frames)
        chosen = np.sort(np.random.default_rng(0).choice(rows, count, replace=False))
        for first in range(0, count, size):
            rows = chosen[first : first + size]
            frames = self._store.gather(rows, instances=True)
            batch = self._batch(rows, frames, self._viewer.evaluation)
            places = None
            if batch.labels is not None:
                places = places_of(
                    batch.labels, frames.instruction, self._store.instructions, self._store.classes
                )
            yield batch, places

    def labels(self, instances: Tensor) -> Tensor:
        """Find the class of the object that each patch shows.

        :param instances: uint8 [B, cameras, H, W], of ``FrameStore.classes``.
        :returns: See :func:`patch_labels`.
        """
        classes = self._store.classes
        shown, size = self._sampled(instances)
        table = torch.from_numpy(classes.of_instance)
        return patch_labels(table[shown.long()], size, len(classes.words))

    def class_ids(self) -> list[list[int]]:
        """Return the token ids of the words for each class.

        :raises TrainError: When frames have no segmentation, or a word is unknown to the policy.
        """
        classes = self._classes('alignment')
        words = [self._config.alignment.background, *classes.words[1:]]
        return word_ids(words, self._tokenizer, self._lowercase)

    def class_frequency(self) -> Tensor:
        """Count how often patches of the training frames show each class [classes]; sums to 1."""
        count = len(self._store.classes.words)
        rows = np.concatenate(self._data.training)
        random = np.random.default_rng(0)
        rows = random.choice(rows, min(len(rows), FREQUENCY_FRAMES), replace=False)
        found = torch.zeros(count)
        for part in np.array_split(np.sort(rows), -(-len(rows) // 64)):
            labels = self.labels(torch.from_numpy(self._store.gather(part, True).instances))
            found += torch.bincount(labels[labels != NO_LABEL], minlength=count)
        return found / found.sum().clamp_min(1)

    def _classes(self, key: str) -> ObjectClasses:
        if self._store.classes is None:
            raise TrainError(
                f'{key}: the demonstrations have no segmentation; record them with segmentation'
            )
        return self._store.classes

    def _batch(
        self,
        rows: np.ndarray,
        frames: Gathered,
        view: Callable[[np.ndarray, np.ndarray | None], Views],
        share: float = 0.0,
    ) -> Batch:
        index = torch.from_numpy(rows)
        ids, mask = self._prompts(frames.instruction, share)
        if self.features is None:
            views = view(frames.images, frames.instances)
        else:
            shown = None if frames.instances is None else torch.from_numpy(frames.instances)
            views = Views(self.features.of(index), shown)
        labels = places = found = None
        if views.instances is not None:
            labels = self.labels(views.instances)
            if self._config.alignment.where:
                places, found = patch_places(*self._sampled(views.instances))
        proprio = None if self._proprio is None else self._proprio[index]
        return Batch(views.pixels, ids, mask, proprio, self.targets[index], labels, places, found)

    def _sampled(self, instances: Tensor) -> tuple[Tensor, int]:
        """Return every other pixel, for a quarter of the work, and the patch size in them."""
        size = self._patch_size
        return (instances[..., ::2, ::2], size // 2) if size % 2 == 0 else (instances, size)


def check_noise(noise: Sequence[float], size: int) -> None:
    """Check that noise on the state is given for each of its ``size`` numbers, or for none.

    :raises ConfigError: When it is not.
    """
    if noise and len(noise) != size:
        raise ConfigError(f'proprio_noise has {len(noise)} numbers, but the state has {size}')


def _normalised_noise(config: TrainConfig, manifest: Manifest) -> Tensor | None:
    """Return the standard deviation [S] of the noise on the normalised state, if any."""
    noise, spec = config.proprio_noise, manifest.proprio
    if not noise:
        return None
    check_noise(noise, 0 if spec is None else len(spec.q01))
    return 2 * torch.tensor(noise) / (torch.tensor(spec.q99) - torch.tensor(spec.q01))
