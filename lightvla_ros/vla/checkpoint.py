"""A published LightVLA or OpenVLA-OFT folder, as downloaded, read strictly and by the shard.

Nothing in the folder is executed: weights come from safetensors, the two ``.pt`` files are loaded
with ``weights_only``, and ``*.py`` files are not looked at. Sizes come from the tensors themselves.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lightvla_ros.one_line import one_line
from lightvla_ros.vla.config import ConfigError, LanguageConfig, TowerConfig, VLAConfig
from lightvla_ros.vla.dropped import Shapes, dropped_shapes, used_shapes
from lightvla_ros.vla.errors import CheckpointError
from lightvla_ros.vla.lora import Adapter, load_adapter, merged

INDEX = 'model.safetensors.index.json'
BACKBONE = 'dinosiglip-vit-so-224px'
TOWER_HEADS = 16  # of both towers (timm's models); shapes do not tell it
GROUP_BYTES = 256 * 2**20  # of tensors in memory at once, and of a file that is written
# Parts of the model that lie in files of their own, and the prefix of their keys in ours.
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
    :param dropped: Names of the folder's tensors that do no work.
    :param adapter: LoRA deltas that are still to be added; None when there are none or all are in.
    :param settings: ``config.json``, ``preprocessor_config.json``, ``dataset_statistics.json``.
    :param lora: ``none``, ``already merged`` or ``merged now``: for provenance.
    """

    folder: Path
    config: VLAConfig
    shards: dict[Path, tuple[str, ...]]
    components: dict[str, Tensor]
    dropped: tuple[str, ...]
    adapter: Adapter | None
    settings: dict[str, Any]
    lora: str

    def tensors(self) -> Iterator[dict[str, Tensor]]:
        """Yield the model's tensors, checked and merged, in groups of about ``GROUP_BYTES``.

        :raises CheckpointError: When one holds NaN or infinity.
        """
        for path, names in self.shards.items():
            used = [name for name in names if name not in self.dropped]
            while used:
                group, size = {}, 0
                # opened for each group: what is mapped of a file stays in memory until it is closed
                with _open(path) as file:
                    while used and size < GROUP_BYTES:
                        name = used.pop(0)
                        group[name] = self._checked(name, file.get_tensor(name), path)
                        size += group[name].nbytes
                yield group
                del group  # before the next is read
        yield {
            name: self._checked(name, value, self.folder) for name, value in self.components.items()
        }

    def _checked(self, name: str, value: Tensor, path: Path) -> Tensor:
        if not torch.isfinite(value).all():
            raise CheckpointError(f'{path}: {name} holds NaN or infinity; download it again')
        if self.adapter is not None and name in self.adapter.factors:
            value = merged(value, self.adapter.delta(name))
        return value


def read_published(folder: Path, base: Path | None = None, **changes: Any) -> Published:
    """Check a downloaded folder and return what is needed to read it.

    :param base: Folder with the base model's shards, for a folder that holds only an adapter.
    :param changes: Fields of :class:`VLAConfig` that a folder does not tell.
    :raises CheckpointError: On anything missing, extra, misshapen, damaged or not understood.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f'{folder}: no such folder; download the checkpoint first')
    for name, meaning in UNSUPPORTED.items():
        if list(folder.glob(f'{name}--*')):
            raise CheckpointError(f'{folder}: {name}--*: {meaning}')
    settings = {
        name: read_json(folder / name)
        for name in ('config.json', 'preprocessor_config.json', 'dataset_statistics.json')
    }
    components = {}
    for name, prefix in COMPONENTS.items():
        components |= _component(folder, name, prefix)
    shards, shapes = _shards(folder if base is None else Path(base))
    found = shapes | {name: tuple(value.shape) for name, value in components.items()}
    config = _config(settings['config.json'], found, folder, changes)
    dropped = _compare(found, config, folder)
    adapter, lora = _adapter(folder, shards, base, config)
    return Published(
        folder, config, shards, components, dropped, adapter, settings, lora
    )  # fmt: skip


def read_json(path: Path) -> Any:
    """Read one of the folder's JSON files.

    :raises CheckpointError: When it is missing or no JSON object.
    """
    if not path.is_file():
        raise CheckpointError(f'{path}: is missing; download the whole folder')
    try:
        document = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise CheckpointError(f'{path}: not JSON: {error}') from None
    if not isinstance(document, dict):
        raise CheckpointError(f'{path}: holds no JSON object')
    return document


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework='pt')
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f'{path}: damaged or cut short: {error}; download it again') from None


def _shards(folder: Path) -> tuple[dict[Path, tuple[str, ...]], Shapes]:
    """Return the names in every shard and the shapes of all, compared with the index."""
    index = folder / INDEX
    if index.is_file():
        listed = read_json(index).get('weight_map')
        if not isinstance(listed, dict) or not listed:
            raise CheckpointError(f'{index}: has no weight_map')
        paths = [folder / name for name in sorted(set(listed.values()))]
    else:
        listed, paths = None, [folder / 'model.safetensors']
        if not paths[0].is_file():
            hint = ''
            if (folder / 'lora_adapter').is_dir():
                hint = ': it holds only an adapter; name the base model with --base DIR'
            raise CheckpointError(f'{folder}: neither {INDEX} nor model.safetensors{hint}')
    shards, shapes = {}, {}
    for path in paths:
        if path.parent != folder or not path.is_file():
            raise CheckpointError(f'{path}: named in {INDEX} but missing; download it')
        with _open(path) as file:
            names = tuple(file.keys())
            for name in names:
                if name in shapes:
                    raise CheckpointError(f'{path}: {name} stands in another shard, too')
                if listed is not None and listed.get(name) != path.name:
                    raise CheckpointError(f'{path}: {name} is not listed there by {INDEX}')
                shapes[name] = tuple(file.get_slice(name).get_shape())
        shards[path] = names
    for name in sorted((listed or {}).keys() - shapes.keys()):
        raise CheckpointError(f'{folder / listed[name]}: lacks {name}, which {INDEX} lists')
    return shards, shapes


def _component(folder: Path, name: str, prefix: str) -> dict[str, Tensor]:
    """Load ``NAME--STEP_checkpoint.pt``; its keys carry DDP's prefix ``module.``."""
    files = sorted(folder.glob(f'{name}--*checkpoint.pt'))
    if len(files) != 1:
        raise CheckpointError(
            f'{folder}: {len(files)} files {name}--*_checkpoint.pt; exactly one is needed'
            + (f': keep the one of the right step, of {[f.name for f in files]}' if files else '')
        )
    try:
        state = torch.load(files[0], map_location='cpu', weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise CheckpointError(
            f'{files[0]}: not plain weights, or damaged: {one_line(error)}'
        ) from None
    if not (isinstance(state, dict) and all(torch.is_tensor(value) for value in state.values())):
        raise CheckpointError(f'{files[0]}: holds something else than named tensors')
    return {prefix + key.removeprefix('module.'): value for key, value in state.items()}


def _config(document: dict, shapes: Shapes, folder: Path, changes: dict[str, Any]) -> VLAConfig:
    """Find the sizes of the model in the shapes of its tensors."""
    backbone = document.get('vision_backbone_id')
    if backbone != BACKBONE:
        raise CheckpointError(
            f'{folder}/config.json: vision_backbone_id is {backbone!r}; only {BACKBONE!r} is read'
        )
    text = document.get('text_config') or {}
    if text.get('rope_scaling'):
        raise CheckpointError(f'{folder}/config.json: text_config.rope_scaling is not supported')
    # What config.json leaves out has the default of transformers' LlamaConfig: upstream built it so
    heads = text.get('num_attention_heads', 32)
    if text.get('num_key_value_heads', heads) != heads:
        raise CheckpointError(f'{folder}/config.json: grouped-query attention is not supported')

    def shape(name: str) -> tuple[int, ...]:
        if name not in shapes:
            raise CheckpointError(f'{folder}: no tensor {name}; this is no OpenVLA-OFT checkpoint')
        return shapes[name]

    def tower(name: str) -> TowerConfig:
        stem = f'vision_backbone.{name}'
        registers = shapes.get(f'{stem}.reg_token')
        return TowerConfig(
            width=shape(f'{stem}.pos_embed')[-1],
            depth=_count(shapes, f'{stem}.blocks'),
            heads=TOWER_HEADS,
            mlp_width=shape(f'{stem}.blocks.0.mlp.fc1.weight')[0],
            registers=registers[1] if registers else 0,
            class_token=f'{stem}.cls_token' in shapes,
            layer_scale=f'{stem}.blocks.0.ls1.scale_factor' in shapes,
            attention_pool=f'{stem}.attn_pool.latent' in shapes,
        )

    patch = shape('vision_backbone.featurizer.patch_embed.proj.weight')[-1]
    vocabulary, width = shape('language_model.model.embed_tokens.weight')
    patches = shape('vision_backbone.featurizer.pos_embed')[1]
    try:
        return VLAConfig(
            **{
                'dino': tower('featurizer'),
                'siglip': tower('fused_featurizer'),
                'language': LanguageConfig(
                    width=width,
                    layers=_count(shapes, 'language_model.model.layers'),
                    heads=heads,
                    mlp_width=shape('language_model.model.layers.0.mlp.gate_proj.weight')[0],
                    vocabulary=vocabulary,
                    norm_eps=text.get('rms_norm_eps', 1e-6),
                    rope_theta=text.get('rope_theta', 10000.0),
                ),
                'projector_width': shape('projector.fc1.weight')[0],
                'head_width': shape('action_head.model.fc1.weight')[0],
                'proprio_size': shape('proprio_projector.fc1.weight')[1],
                'action_size': shape('action_head.model.fc2.weight')[0],
                'image_size': round(patches**0.5) * patch,
                'patch_size': patch,
                **changes,
            }
        )
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f'{folder}: its sizes do not fit together: {error}') from None


def _count(shapes: Shapes, stem: str) -> int:
    """Count the layers below a name: one more than the highest index."""
    found = (re.match(rf'{re.escape(stem)}\.(\d+)\.', name) for name in shapes)
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def _compare(found: Shapes, config: VLAConfig, folder: Path) -> tuple[str, ...]:
    """Every tensor is used or known as dead work, and has the shape that it must have."""
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
        raise CheckpointError(f'{folder}: tensor {name} {found[name]} is not of this model')
    for name, shape in found.items():
        if shape != known[name]:
            raise CheckpointError(f'{folder}: {name} has shape {shape}, not {known[name]}')
    return tuple(sorted(found.keys() & dropped.keys()))


def _adapter(
    folder: Path, shards: dict[Path, tuple[str, ...]], base: Path | None, config: VLAConfig
) -> tuple[Adapter | None, str]:
    """Load ``lora_adapter`` and find out whether the weights hold it already."""
    if not (folder / 'lora_adapter').is_dir():
        if base is not None:
            raise CheckpointError(f'{folder}: no lora_adapter, so --base has nothing to add')
        return None, 'none'
    adapter = load_adapter(folder / 'lora_adapter')
    known = used_shapes(config) | dropped_shapes(config)
    where = {name: path for path, names in shards.items() for name in names}
    for name, (a, b) in adapter.factors.items():
        if known.get(name) != (b.shape[0], a.shape[1]):
            raise CheckpointError(
                f'{folder}/lora_adapter: {name} {(b.shape[0], a.shape[1])} is not of this model'
            )

    def weight(name: str) -> Tensor:
        with _open(where[name]) as file:
            return file.get_tensor(name)

    share = adapter.share_merged(weight)
    if 0.75 < share < 1.25:
        return None, 'already merged'
    if -0.25 < share < 0.25:
        return adapter, 'merged now'
    raise CheckpointError(
        f'{folder}/lora_adapter: the weights hold {share:.2f} of it, neither none nor all; remove '
        'the folder lora_adapter if they are complete without it'
    )
