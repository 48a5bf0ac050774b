"""Reads the model's settings from ``config.json`` and ``preprocessor_config.json``.

A field is read, or must have this model's value, or is known to have no effect. Any other field is
refused by name, because it may mean a different model.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lightvla_ros.errors import CheckpointError, ConfigError, one_line
from lightvla_ros.export.published_files import check_fields
from lightvla_ros.vla.config import LanguageConfig, TowerConfig, VLAConfig
from lightvla_ros.vla.weights import Shapes

BACKBONE = 'dinosiglip-vit-so-224px'
TOWERS = ['vit_large_patch14_reg4_dinov2.lvd142m', 'vit_so400m_patch14_siglip_224']
TOWER_HEADS = 16  # of both towers (timm's models); it cannot be read from the shapes
# DINOv2's constants are rounded to bf16 in published folders: the conversion ran with that default
# type (OpenVLA's convert_openvla_weights_to_hf.py). SigLIP's are exact.
CONSTANTS = {
    'DINOv2': ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    'SigLIP': ([0.5] * 3, [0.5] * 3),
}
ROUNDING = 0.002

# Fields of transformers' PretrainedConfig that any model's config.json may hold
ANY_MODEL = {
    '_attn_implementation_autoset', '_commit_hash', '_name_or_path', 'architectures', 'auto_map',
    'bad_words_ids', 'begin_suppress_tokens', 'bos_token_id', 'chunk_size_feed_forward',
    'decoder_start_token_id', 'diversity_penalty', 'do_sample', 'dtype', 'early_stopping',
    'encoder_no_repeat_ngram_size', 'eos_token_id', 'exponential_decay_length_penalty',
    'finetuning_task', 'forced_bos_token_id', 'forced_eos_token_id', 'id2label', 'label2id',
    'length_penalty', 'max_length', 'min_length', 'no_repeat_ngram_size', 'num_beam_groups',
    'num_beams', 'num_return_sequences', 'output_attentions', 'output_hidden_states',
    'output_scores', 'pad_token_id', 'prefix', 'problem_type', 'remove_invalid_values',
    'repetition_penalty', 'return_dict', 'return_dict_in_generate', 'sep_token_id',
    'suppress_tokens', 'task_specific_params', 'temperature', 'tf_legacy_loss', 'tokenizer_class',
    'top_k', 'top_p', 'torch_dtype', 'torchscript', 'transformers_version', 'typical_p',
    'use_bfloat16', 'use_cache',
}  # fmt: skip
# OpenVLA's own fields. norm_stats belong to the base model; dataset_statistics.json replaces them.
OPENVLA = {
    'arch_specifier', 'hf_llm_id', 'image_resize_strategy', 'llm_max_length', 'n_action_bins',
    'norm_stats', 'output_projector_states', 'pad_to_multiple_of', 'text_config',
    'action_token_begin_idx',
}  # fmt: skip
# LLaMA's fields: they concern training or speed, or are read below
LLAMA = {
    'attention_dropout', 'initializer_range', 'max_position_embeddings', 'num_attention_heads',
    'pretraining_tp', 'rms_norm_eps', 'rope_theta',
}  # fmt: skip
PROCESSOR = {
    'auto_map', 'feature_extractor_type', 'image_processor_type', 'interpolations', 'means',
    'processor_class', 'stds', 'tvf_letterbox_fill', 'tvf_normalize_params',
}  # fmt: skip
# Required values of fields that may occur at both levels of config.json
PLAIN = {
    'add_cross_attention': [False],
    'is_decoder': [False],
    'is_encoder_decoder': [False],
    'pruned_heads': [{}],
    'tie_encoder_decoder': [False],
    'tie_word_embeddings': [False],
}


def model_config(document: dict[str, Any], shapes: Shapes, path: Path, **changes: Any) -> VLAConfig:
    """Read the sizes of the model from the shapes of its tensors, the rest from ``config.json``.

    :param path: Path of ``config.json``.
    :param changes: Fields of :class:`VLAConfig` that the folder does not specify.
    :raises CheckpointError: When sizes do not fit together, or a field means another model.
    """
    text = document.get('text_config') or {}
    if not isinstance(text, dict):
        raise CheckpointError(f'{path}: text_config is {one_line(repr(text))}, not a JSON object')
    # Missing fields have the default of transformers' LlamaConfig, as in the published code
    heads = _number(text, 'num_attention_heads', 32, path, whole=True)
    theta = _number(text, 'rope_theta', 10000.0, path)
    vocabulary, width = _shape(shapes, 'language_model.model.embed_tokens.weight', 2, path)
    patch = _shape(shapes, 'vision_backbone.featurizer.patch_embed.proj.weight', 4, path)[-1]
    patches = _shape(shapes, 'vision_backbone.featurizer.pos_embed', 3, path)[1]
    try:
        config = VLAConfig(
            **{
                'dino': _tower(shapes, 'featurizer', path),
                'siglip': _tower(shapes, 'fused_featurizer', path),
                'language': LanguageConfig(
                    width=width,
                    layers=_count(shapes, 'language_model.model.layers', path),
                    heads=heads,
                    mlp_width=_rows(
                        shapes, 'language_model.model.layers.0.mlp.gate_proj.weight', path
                    ),
                    vocabulary=vocabulary,
                    norm_eps=_number(text, 'rms_norm_eps', 1e-6, path),
                    rope_theta=theta,
                ),
                'projector_width': _rows(shapes, 'projector.fc1.weight', path),
                'head_width': _rows(shapes, 'action_head.model.fc1.weight', path),
                'proprio_size': _shape(shapes, 'proprio_projector.fc1.weight', 2, path)[1],
                'action_size': _rows(shapes, 'action_head.model.fc2.weight', path),
                'image_size': round(patches**0.5) * patch,
                'patch_size': patch,
                **changes,
            }
        )
    except ConfigError as error:
        raise CheckpointError(f'{path.parent}: its sizes do not fit together: {error}') from None
    _check_config(document, text, config, path)
    return config


def _check_config(
    document: dict[str, Any], text: dict[str, Any], config: VLAConfig, path: Path
) -> None:
    if document.get('vision_backbone_id') != BACKBONE:
        found = one_line(repr(document.get('vision_backbone_id')))
        raise CheckpointError(
            f'{path}: vision_backbone_id is {found}; only {BACKBONE!r} is supported'
        )
    only = PLAIN | {
        'image_sizes': [[config.image_size] * 2],
        'llm_backbone_id': ['llama2-7b-pure'],
        'model_type': ['openvla'],
        'prompt_suffix_token_id': [29871],
        'stop_token_id': [config.stop_id],
        'timm_model_ids': [TOWERS],
        'timm_override_act_layers': [[None, None]],
        'use_fused_vision_backbone': [True],
        'vision_backbone_id': [BACKBONE],
    }
    check_fields(f'{path}: ', document, only, ANY_MODEL | OPENVLA)
    language = config.language
    only = PLAIN | {
        'attention_bias': [False],
        'head_dim': [language.width // language.heads],
        'hidden_act': ['silu'],
        'hidden_size': [language.width],
        'intermediate_size': [language.mlp_width],
        'mlp_bias': [False],
        'model_type': ['llama'],
        'num_hidden_layers': [language.layers],
        'num_key_value_heads': [language.heads],
        # newer transformers write rope_theta here; for this model they write these values
        'rope_parameters': [{'rope_theta': 10000.0, 'rope_type': 'default'}],
        'vocab_size': [language.vocabulary],
    }
    check_fields(f'{path}: text_config.', text, only, ANY_MODEL | LLAMA)
    if text.get('rope_parameters') and language.rope_theta != 10000.0:
        raise CheckpointError(f'{path}: text_config: rope_theta and rope_parameters disagree')


def normalisation(document: dict[str, Any], size: int, path: Path) -> list[dict[str, list[float]]]:
    """Return mean and std of both towers, as the checkpoint's own processor has them.

    :param size: Height and width of the model's input [px].
    :param path: Path of ``preprocessor_config.json``.
    :raises CheckpointError: When the processor works differently, or has other towers' constants.
    """
    only = {
        'image_resize_strategy': ['resize-naive'],
        'input_sizes': [[[3, size, size]] * 2],
        'tvf_crop_params': [[{'output_size': [size, size]}] * 2],
        'tvf_do_letterbox': [False],
        # the picture has this size already, so nothing is resampled
        'tvf_resize_params': [
            [{'antialias': True, 'interpolation': 3, 'max_size': None, 'size': [size, size]}] * 2
        ],
        'use_fused_vision_backbone': [True],
    }
    check_fields(f'{path}: ', document, only, PROCESSOR)
    towers = document.get('tvf_normalize_params')
    if not isinstance(towers, list) or len(towers) != 2:
        raise CheckpointError(f'{path}: tvf_normalize_params must list two towers')
    found = []
    for index, (tower, (name, constants)) in enumerate(zip(towers, CONSTANTS.items(), strict=True)):
        numbers = {}
        for field, wanted in zip(('mean', 'std'), constants, strict=True):
            values = tower.get(field) if isinstance(tower, dict) else None
            if not _close(values, wanted):
                raise CheckpointError(
                    f'{path}: tvf_normalize_params[{index}].{field} is {one_line(repr(values))}, '
                    f"not {name}'s {wanted}; the towers are DINOv2, then SigLIP"
                )
            numbers[field] = list(values)
        found.append(numbers)
    return found


def _close(values: Any, wanted: list[float]) -> bool:
    return (
        isinstance(values, list)
        and len(values) == len(wanted)
        and all(isinstance(value, int | float) for value in values)
        and all(abs(a - b) <= ROUNDING for a, b in zip(values, wanted, strict=True))
    )


def _number(
    text: dict[str, Any], field: str, default: float, path: Path, whole: bool = False
) -> Any:
    value = text.get(field)
    value = default if value is None else value
    right = isinstance(value, int) if whole else isinstance(value, int | float)
    # excludes NaN, infinity and integers too large for a float
    if isinstance(value, bool) or not right or not 0 < value < 1e12:
        kind = 'whole positive number' if whole else 'positive number'
        raise CheckpointError(
            f'{path}: text_config.{field} is {one_line(repr(value))}, not a {kind}'
        )
    return value


def _shape(shapes: Shapes, name: str, dimensions: int, path: Path) -> tuple[int, ...]:
    found = shapes.get(name)
    if found is None:
        raise CheckpointError(
            f'{path.parent}: has no tensor {name}; this is not an OpenVLA-OFT checkpoint'
        )
    if len(found) != dimensions:
        raise CheckpointError(f'{path.parent}: {name} has shape {found}, not {dimensions} sizes')
    return found


def _rows(shapes: Shapes, name: str, path: Path) -> int:
    return _shape(shapes, name, 2, path)[0]


def _tower(shapes: Shapes, name: str, path: Path) -> TowerConfig:
    stem = f'vision_backbone.{name}'
    registers = f'{stem}.reg_token' in shapes
    return TowerConfig(
        width=_shape(shapes, f'{stem}.pos_embed', 3, path)[-1],
        depth=_count(shapes, f'{stem}.blocks', path),
        heads=TOWER_HEADS,
        mlp_width=_rows(shapes, f'{stem}.blocks.0.mlp.fc1.weight', path),
        registers=_shape(shapes, f'{stem}.reg_token', 3, path)[1] if registers else 0,
        class_token=f'{stem}.cls_token' in shapes,
        layer_scale=f'{stem}.blocks.0.ls1.scale_factor' in shapes,
        attention_pool=f'{stem}.attn_pool.latent' in shapes,
    )


def _count(shapes: Shapes, stem: str, path: Path) -> int:
    """Count the layers below a name, and refuse a gap in their numbers."""
    found = {
        int(match[1])
        for name in shapes
        if (match := re.match(rf'{re.escape(stem)}\.(\d{{1,6}})\.', name))
    }
    missing = sorted(set(range(len(found))) - found)
    if missing:
        raise CheckpointError(f'{path.parent}: {stem}.{missing[0]} is missing; download it again')
    return len(found)
