"""Trained weights: their means, and the policy folder with them, ready for export."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lightvla_ros.contract import Manifest, write_manifest
from lightvla_ros.files import new_folder, replace_whole
from lightvla_ros.train.data import Data
from lightvla_ros.train.start import TOKENIZER

GROUP_BYTES = 4 * 2**30  # of weights in one file
GOLDEN_FRAMES = 6


def between(
    start: Mapping[str, Tensor], end: Mapping[str, Tensor], share: float
) -> dict[str, Tensor]:
    """Return the weights at a share of the way from ``start`` (0) to ``end`` (1).

    Fine-tuning often loses abilities of the initial weights; interpolated weights keep most of the
    old and the new abilities (Wortsman et al. 2022, arXiv 2109.01903).

    :raises KeyError: When they do not have the same names.
    """
    return {name: torch.lerp(start[name], value, share) for name, value in end.items()}


class RunningMean:
    """The running mean (EMA) of all trained weights.

    :param decay: 0 for no mean; then the weights themselves are used.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._weights = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.mean: dict[str, Tensor] = {}
        if decay:
            self.mean = {name: weight.detach().clone() for name, weight in self._weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the mean after a step (from 0); the decay is smaller in early steps."""
        if not self._decay:
            return
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(
            list(self.mean.values()), [self._weights[name] for name in self.mean], 1 - decay
        )

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the mean into the model inside the ``with`` block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, mean in self.mean.items():
            weight = self._weights[name]
            kept = weight.detach().clone()
            weight.copy_(mean)
            mean.copy_(kept)


def write_policy(
    folder: Path,
    weights: Mapping[str, Tensor],
    document: Mapping[str, Any],
    tokenizer: Path,
    provenance: Mapping[str, Any],
) -> Manifest:
    """Write a policy folder atomically: it gets its name when it is complete.

    :param weights: Weights of ``LightVLA``, by its names.
    :param document: Document of the manifest, without names of weights.
    :raises FileExistsError: When the folder is not empty.
    :raises WriteError: When the disk is full; then the folder is not created.
    """
    new_folder(folder)
    groups: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, value in weights.items():
        if size + value.nbytes > GROUP_BYTES and groups[-1]:
            groups.append({})
            size = 0
        groups[-1][name] = value.detach().contiguous()
        size += value.nbytes
    names = ['model.safetensors']
    if len(groups) > 1:
        names = [f'model-{index:05d}.safetensors' for index in range(len(groups))]
    model = {**document['model'], 'weights': names}
    before = document.get('provenance') or {}
    needed = sum(value.nbytes for group in groups for value in group.values())
    with replace_whole(folder, needed) as part:  # an empty folder may be replaced
        part.mkdir()
        for name, group in zip(names, groups, strict=True):
            save_file(group, part / name)
        shutil.copyfile(tokenizer, part / TOKENIZER)
        return write_manifest(
            part,
            {
                **document,
                'model': model,
                'provenance': {**provenance, **({'from': before} if before else {})},
            },
        )


def write_observations(path: Path, data: Data) -> None:
    """Write some frames for ``lightvla export --observations``: held-out ones where there are."""
    store = data.store
    rows = data.held_out if len(data.held_out) else np.concatenate(data.training)
    rows = rows[np.linspace(0, len(rows) - 1, GOLDEN_FRAMES).astype(int)]
    frames = store.gather(rows, instances=False)
    instructions = [store.instructions[index] for index in frames.instruction]
    with replace_whole(path, frames.images.nbytes) as part:
        np.savez_compressed(
            part, images=frames.images, instruction=instructions, proprio=store.proprio[rows]
        )
