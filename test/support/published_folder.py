"""Writes a folder in the format of a published LightVLA checkpoint, with any sizes."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from lightvla_ros.export.published import INDEX, dropped_shapes
from lightvla_ros.export.published_config import BACKBONE, TOWERS
from lightvla_ros.vla.config import LanguageConfig, TowerConfig, VLAConfig
from lightvla_ros.vla.weights import used_shapes

DINO_MEAN, DINO_STD = [0.484375, 0.455078125, 0.40625], [0.228515625, 0.2236328125, 0.224609375]
STATISTICS = {
    'action': {
        'q01': [-0.7, -0.6, -0.9, -0.1, -0.2, -0.2, 0.0],
        'q99': [0.9, 0.8, 0.9, 0.1, 0.2, 0.2, 1.0],
        'mask': [True] * 6 + [False],
        **{name: [0.0] * 7 for name in ('mean', 'std', 'min', 'max')},
    },
    'proprio': {
        'q01': [-0.5] * 8,
        'q99': [0.5] * 8,
        **{name: [0.0] * 8 for name in ('mean', 'std', 'min', 'max')},
    },
    'num_transitions': 1000,
    'num_trajectories': 10,
}


def tiny_published_config(**language) -> VLAConfig:
    """16 heads in the towers, as published: shapes do not tell them."""
    return VLAConfig(
        dino=TowerConfig(
            width=32, depth=3, heads=16, mlp_width=64, registers=4, class_token=True,
            layer_scale=True,
        ),
        siglip=TowerConfig(width=48, depth=2, heads=16, mlp_width=80, attention_pool=True),
        language=LanguageConfig(
            **{
                'width': 32, 'layers': 2, 'heads': 4, 'mlp_width': 48, 'vocabulary': 32064,
                **language,
            }
        ),
        projector_width=64,
        head_width=24,
        image_size=28,
        patch_size=14,
    )  # fmt: skip


def write_published(
    folder: Path,
    config: VLAConfig | None = None,
    *,
    shards: int = 3,
    keys: tuple[str, ...] = ('libero_spatial_no_noops',),
    seed: int = 0,
) -> dict[str, torch.Tensor]:
    """Write the folder and return its VLA tensors (bf16) and components by our names."""
    config = config or tiny_published_config()
    folder.mkdir(parents=True)
    random = torch.Generator().manual_seed(seed)
    shapes = used_shapes(config) | dropped_shapes(config)
    names = sorted(shapes)
    vla = [n for n in names if n.split('.')[0] not in ('action_head', 'proprio_projector')]
    written, weight_map = {}, {}
    for index in range(shards):
        file = f'model-{index + 1:05d}-of-{shards:05d}.safetensors'
        part = {
            name: (torch.randn(shapes[name], generator=random) * 0.05).bfloat16()
            for name in vla[index::shards]
        }
        save_file(part, folder / file, metadata={'format': 'pt'})
        weight_map |= dict.fromkeys(part, file)
        if config.language.width < 256:  # for a large folder nobody compares
            written |= part
    (folder / INDEX).write_text(json.dumps({'metadata': {}, 'weight_map': weight_map}))
    for component, dtype in (
        ('action_head', torch.bfloat16),
        ('proprio_projector', torch.float32),
    ):
        state = {
            n: (torch.randn(shapes[n], generator=random) * 0.05).to(dtype)
            for n in names
            if n.startswith(f'{component}.')
        }
        written |= state
        torch.save(
            {n.replace(f'{component}.', 'module.', 1): v for n, v in state.items()},
            folder / f'{component}--40000_checkpoint.pt',
        )
    language, size = config.language, [config.image_size] * 2
    documents = {
        'config.json': {
            'architectures': ['OpenVLAForActionPrediction'],
            'auto_map': {'AutoConfig': 'configuration_prismatic.OpenVLAConfig'},
            'arch_specifier': 'no-align+fused-gelu-mlp',
            'hf_llm_id': 'meta-llama/Llama-2-7b-hf',
            'image_resize_strategy': 'resize-naive',
            'image_sizes': [config.image_size] * 2,
            'llm_backbone_id': 'llama2-7b-pure',
            'llm_max_length': 2048,
            'model_type': 'openvla',
            'n_action_bins': 256,
            'norm_stats': {'bridge_orig': STATISTICS},  # of the base, replaced by the statistics
            'output_projector_states': False,
            'pad_to_multiple_of': 64,
            'pad_token_id': 32000,
            'timm_model_ids': TOWERS,
            'timm_override_act_layers': [None, None],
            'torch_dtype': 'bfloat16',
            'transformers_version': '4.40.1',
            'use_fused_vision_backbone': True,
            'vision_backbone_id': BACKBONE,
            'text_config': {
                'model_type': 'llama',
                'num_attention_heads': language.heads,
                'pad_token_id': 32000,
                'torch_dtype': 'bfloat16',
                'vocab_size': language.vocabulary,
            },
        },
        'preprocessor_config.json': {
            'auto_map': {'AutoImageProcessor': 'processing_prismatic.PrismaticImageProcessor'},
            'image_processor_type': 'PrismaticImageProcessor',
            'image_resize_strategy': 'resize-naive',
            'input_sizes': [[3, *size]] * 2,
            'interpolations': ['bicubic'] * 2,
            'means': [DINO_MEAN, [0.5] * 3],
            'processor_class': 'PrismaticProcessor',
            'stds': [DINO_STD, [0.5] * 3],
            'tvf_crop_params': [{'output_size': size}] * 2,
            'tvf_do_letterbox': False,
            'tvf_letterbox_fill': None,
            'tvf_normalize_params': [
                {'inplace': False, 'mean': DINO_MEAN, 'std': DINO_STD},
                {'inplace': False, 'mean': [0.5] * 3, 'std': [0.5] * 3},
            ],
            'tvf_resize_params': [
                {'antialias': True, 'interpolation': 3, 'max_size': None, 'size': size}
            ]
            * 2,
            'use_fused_vision_backbone': True,
        },
        'dataset_statistics.json': dict.fromkeys(keys, STATISTICS),
    }
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document))
    # what a download also holds; none of it may be run
    (folder / 'modeling_prismatic.py').write_text('raise SystemExit("executed")')
    _tokenizer().save(str(folder / 'tokenizer.json'))
    return written


def write_adapter(folder: Path, targets: dict[str, torch.Tensor], rank: int = 2) -> dict:
    """Write ``lora_adapter`` for some weights and return each delta."""
    random = torch.Generator().manual_seed(9)
    (folder / 'lora_adapter').mkdir()
    factors, deltas = {}, {}
    for name, weight in targets.items():
        a = torch.randn(rank, weight.shape[1], generator=random)
        b = torch.randn(weight.shape[0], rank, generator=random) * 0.1
        stem = f'base_model.model.{name.removesuffix(".weight")}'
        factors[f'{stem}.lora_A.weight'], factors[f'{stem}.lora_B.weight'] = a, b
        deltas[name] = 0.5 * b @ a
    save_file(factors, folder / 'lora_adapter' / 'adapter_model.safetensors')
    (folder / 'lora_adapter' / 'adapter_config.json').write_text(
        json.dumps({'peft_type': 'LORA', 'r': rank, 'lora_alpha': rank / 2})
    )
    return deltas


def _tokenizer() -> Tokenizer:
    """One token per word, with LLaMA's special ids."""
    words = 'In: What action should the robot take to pick up and place it on in Out:'
    vocabulary = {'<unk>': 0, '<s>': 1, '</s>': 2}
    vocabulary |= {word: index for index, word in enumerate(words.split(), 3)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token='<unk>'))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single='<s> $A', special_tokens=[('<s>', 1)]
    )
    return tokenizer
