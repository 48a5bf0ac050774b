"""Strict reader of a published LightVLA or OpenVLA-OFT folder, as downloaded, shard by shard.

Nothing in the folder is executed, and ``*.py`` files are not read. Sizes come from the tensors
themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightvla_ros.errors import CheckpointError, one_line
from lightvla_ros.export.published_config import model_config, normalisation
from lightvla_ros.export.published_files import (
    open_tensors,
    read_json,
    read_pt,
    read_tensor,
    stored_shapes,
)
from lightvla_ros.export.published_lora import Adapter, load_adapter
from lightvla_ros.vla.config import VLAConfig
from lightvla_ros.vla.vision import Block
from lightvla_ros.vla.weights import Shapes, merged, used_shapes

INDEX = 'model.safetensors.index.json'
GROUP_BYTES = 256 * 2**20  # of tensors that are in memory together and go into one output file
# Parts of the model that are stored in separate files, and the prefix of their keys in our model.
COMPONENTS = {'action_head': 'action_head.', 'proprio_projector': 'proprio_projector.'}
UNSUPPORTED = {
    'vision_backbone': 'a FiLM checkpoint; only those without language modulation can be imported',
    'noisy_action_projector': 'a diffusion checkpoint; only L1 regression can be imported',
}


@dataclass(frozen=True)
class Published:
    """A checked folder.

    :param config: The model that it holds.
    :param shards: Shard files, in order, with the names of their tensors.
    :param components: Tensors of head and proprio projector, by our names.
    :param dropped: Names of the folder's tensors that do not affect the actions.
    :param adapter: LoRA deltas still to be added; None if there are none or all are merged.
    :param normalisation: Mean and std of both towers.
    :param statistics: Contents of ``dataset_statistics.json``.
    :param lora: ``none``, ``already merged`` or ``merged now``; recorded in the provenance.
    """

    folder: Path
    config: VLAConfig
    shards: dict[Path, tuple[str, ...]]
    components: dict[str, Tensor]
    dropped: tuple[str, ...]
    adapter: Adapter | None
    normalisation: list[dict[str, list[float]]]
    statistics: dict[str, Any]
    lora: str

    def tensors(self) -> Iterator[dict[str, Tensor]]:
        """Yield the model's tensors, checked and merged, in groups of about ``GROUP_BYTES``.

        :raises CheckpointError: When a tensor holds NaN or infinity.
        """
        for path, names in self.shards.items():
            used = [name for name in names if name not in self.dropped]
            while used:
                group, size = {}, 0
                # opened for each group: mapped parts of a file stay in memory until it is closed
                with open_tensors(path) as file:
                    while used and size < GROUP_BYTES:
                        name = used.pop(0)
                        group[name] = self._checked(name, read_tensor(file, name, path), path)
                        size += group[name].nbytes
                yield group
                del group  # before the next group is read
        yield {
            name: self._checked(name, value, self.folder) for name, value in self.components.items()
        }

    def _checked(self, name: str, value: Tensor, path: Path) -> Tensor:
        if self.adapter is not None and name in self.adapter.factors:
            value = merged(value, self.adapter.delta(name))
        if not torch.isfinite(value).all():
            raise CheckpointError(f'{path}: {name} holds NaN or infinity; download it again')
        return value


def read_published(folder: Path, base: Path | None = None, **changes: Any) -> Published:
    """Check a downloaded folder and return what is needed to read it.

    :param base: Folder with the base model's shards, for a folder that holds only an adapter.
    :param changes: Fields of :class:`VLAConfig` that the folder does not specify.
    :raises CheckpointError: When anything is missing, extra, damaged, unknown or of another shape.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f'{folder}: no such folder; download the checkpoint first')
    for name, meaning in UNSUPPORTED.items():
        if list(folder.glob(f'{name}--*')):
            raise CheckpointError(f'{folder}: {name}--*: {meaning}')
    names = ('config.json', 'preprocessor_config.json', 'dataset_statistics.json')
    settings = {name: read_json(folder / name) for name in names}
    components = _components(folder)
    shards, shapes = _shards(folder if base is None else Path(base))
    found = shapes | {name: tuple(value.shape) for name, value in components.items()}
    config = model_config(settings[names[0]], found, folder / names[0], **changes)
    constants = normalisation(settings[names[1]], config.image_size, folder / names[1])
    dropped = _compare(found, config, folder)
    adapter, lora = _adapter(folder, shards, base, config)
    return Published(
        folder=folder,
        config=config,
        shards=shards,
        components=components,
        dropped=dropped,
        adapter=adapter,
        normalisation=constants,
        statistics=settings[names[2]],
        lora=lora,
    )


def _shards(folder: Path) -> tuple[dict[Path, tuple[str, ...]], Shapes]:
    """Return the names in every shard and the shapes of all, compared with the index."""
    index = folder / INDEX
    if index.is_file():
        listed = read_json(index).get('weight_map')
        if not isinstance(listed, dict) or not listed:
            raise CheckpointError(f'{index}: has no weight_map')
        for name, file in listed.items():
            # it must be a name, not a path, so that no file outside the folder is read
            if not isinstance(file, str) or not re.fullmatch(r'[\w.-]{1,100}\.safetensors', file):
                raise CheckpointError(
                    f'{index}: weight_map gives {one_line(repr(file))} for {one_line(name)}, which '
                    'is not a file of this folder; download it again'
                )
        paths = [folder / name for name in sorted(set(listed.values()))]
    else:
        listed, paths = None, [folder / 'model.safetensors']
        if not paths[0].is_file():
            hint = ''
            if (folder / 'lora_adapter').is_dir():
                hint = '; it holds only an adapter: give the base model with --base DIR'
            raise CheckpointError(f'{folder}: has neither {INDEX} nor model.safetensors{hint}')
    shards, shapes = {}, {}
    for path in paths:
        if not path.is_file():
            raise CheckpointError(f'{path}: named in {INDEX} but missing; download it')
    for path in paths:
        with open_tensors(path) as file:
            found = stored_shapes(file, path)
        for name in found:
            if name in shapes:
                raise CheckpointError(f'{path}: {name} is also stored in another shard')
            if listed is not None and listed.get(name) != path.name:
                raise CheckpointError(f'{path}: holds {name}, but {INDEX} does not list it there')
        shapes |= found
        shards[path] = tuple(found)
    for name in sorted((listed or {}).keys() - shapes.keys()):
        raise CheckpointError(f'{folder / listed[name]}: lacks {name}, which {INDEX} lists')
    return shards, shapes


def _components(folder: Path) -> dict[str, Tensor]:
    """Load ``NAME--STEP_checkpoint.pt`` of each component; keys carry DDP's prefix ``module.``."""
    files = {name: sorted(folder.glob(f'{name}--*checkpoint.pt')) for name in COMPONENTS}
    for name, found in files.items():
        if len(found) != 1:
            raise CheckpointError(
                f'{folder}: {len(found)} files {name}--*_checkpoint.pt; exactly one is needed'
                + (f'; keep only the right step of {[f.name for f in found]}' if found else '')
            )
    paths = {name: found[0] for name, found in files.items()}
    _check_steps(folder, paths)
    return {
        COMPONENTS[name] + key.removeprefix('module.'): value
        for name, path in paths.items()
        for key, value in read_pt(path).items()
    }


def _check_steps(folder: Path, paths: dict[str, Path]) -> None:
    """Refuse parts of different training steps. A run's folder is named ``RUN--STEP_chkpt``."""
    steps = {path.name: _step(path.name) for path in paths.values()}
    own = folder.resolve().name
    if re.search(r'--\d+_chkpt$', own):
        steps = {f'{own}/': _step(own)} | steps
    (first, step), *others = steps.items()
    for name, other in others:
        if other != step:
            raise CheckpointError(
                f'{folder}: {first} is from step {step}, {name} from step {other}; use parts from '
                'one step'
            )


def _step(name: str) -> str:
    """Return ``40000`` for ``action_head--40000_checkpoint.pt``, or ``latest``."""
    step = name.rsplit('--', 1)[1].rsplit('_', 1)[0]
    return step.lstrip('0') if step.isdecimal() else step


def _compare(found: Shapes, config: VLAConfig, folder: Path) -> tuple[str, ...]:
    """Check that every tensor is used or known to be dropped, and has the right shape."""
    dropped = dropped_shapes(config)
    # LightVLA* has weights that no published checkpoint has
    used = {
        name: shape
        for name, shape in used_shapes(config).items()
        if not name.startswith('queries.')
    }
    for name in sorted(used.keys() - found.keys()):
        raise CheckpointError(f'{folder}: tensor {name} {used[name]} is missing')
    known = used | dropped
    for name in sorted(found.keys() - known.keys()):
        raise CheckpointError(f'{folder}: tensor {name} {found[name]} is unknown to this model')
    for name, shape in found.items():
        if shape != known[name]:
            raise CheckpointError(f'{folder}: {name} has shape {shape}, not {known[name]}')
    return tuple(sorted(found.keys() & dropped.keys()))


def _adapter(
    folder: Path, shards: dict[Path, tuple[str, ...]], base: Path | None, config: VLAConfig
) -> tuple[Adapter | None, str]:
    """Load ``lora_adapter`` and determine whether it is merged into the weights already."""
    if not (folder / 'lora_adapter').is_dir():
        if base is not None:
            raise CheckpointError(f'{folder}: has no lora_adapter to add to --base')
        return None, 'none'
    adapter = load_adapter(folder / 'lora_adapter')
    known = used_shapes(config) | dropped_shapes(config)
    where = {name: path for path, names in shards.items() for name in names}
    for name, (a, b) in adapter.factors.items():
        if name not in where or known.get(name) != (b.shape[0], a.shape[1]):
            raise CheckpointError(
                f'{folder}/lora_adapter: {name} {(b.shape[0], a.shape[1])} does not belong to this '
                'model'
            )

    def weight(name: str) -> Tensor:
        with open_tensors(where[name]) as file:
            return read_tensor(file, name, where[name])

    share = adapter.share_merged(weight)
    if 0.75 < share < 1.25:
        return None, 'already merged'
    if -0.25 < share < 0.25:
        return adapter, 'merged now'
    raise CheckpointError(
        f'{folder}/lora_adapter: a share of {share:.2f} of it is merged into the weights, neither '
        'none nor all; remove the folder lora_adapter if the weights are complete without it'
    )


def dropped_shapes(config: VLAConfig) -> Shapes:
    """Return the known parameters of a published VLA that do not affect its actions.

    Features are read before each tower's last block, so the last block, the norm and the attention
    pool are unused; actions come from the L1 head, so ``lm_head`` is unused.
    """
    language = config.language
    dropped = {'language_model.lm_head.weight': (language.vocabulary, language.width)}
    for name, tower in (('featurizer', config.dino), ('fused_featurizer', config.siglip)):
        stem = f'vision_backbone.{name}'
        with torch.device('meta'):
            block = Block(tower).state_dict()
        for key, value in block.items():
            dropped[f'{stem}.blocks.{tower.depth - 1}.{key}'] = tuple(value.shape)
        wide = (tower.width,)
        dropped |= {f'{stem}.norm.weight': wide, f'{stem}.norm.bias': wide}
        if tower.attention_pool:
            dropped |= _attention_pool(f'{stem}.attn_pool', tower.width, tower.mlp_width)
    return dropped


def _attention_pool(stem: str, width: int, mlp_width: int) -> Shapes:
    """Timm's AttentionPoolLatent."""
    shapes = {f'{stem}.latent': (1, 1, width)}
    for name, rows, columns in (
        ('q', width, width),
        ('kv', 2 * width, width),
        ('proj', width, width),
        ('mlp.fc1', mlp_width, width),
        ('mlp.fc2', width, mlp_width),
    ):
        shapes[f'{stem}.{name}.weight'] = (rows, columns)
        shapes[f'{stem}.{name}.bias'] = (rows,)
    return shapes | {f'{stem}.norm.weight': (width,), f'{stem}.norm.bias': (width,)}
