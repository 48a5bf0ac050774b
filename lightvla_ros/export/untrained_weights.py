"""An untrained policy of the real model: seeded random weights, exported as trained ones are."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from lightvla_ros.contract import write_manifest
from lightvla_ros.export.untrained import manifest_document
from lightvla_ros.manifest import Manifest
from lightvla_ros.new_folder import new_folder
from lightvla_ros.vla.config import VLAConfig
from lightvla_ros.vla.model import LightVLA

PAD, BOS, STOP, UNKNOWN, END_OF_PROMPT = range(5)
PROMPT_LENGTH = 34  # LIBERO's longest instruction takes 33
# All that LIBERO's Object and Spatial suites say, and the prompt around it
WORDS = (
    'in what action should the robot take to out : ? '
    'pick up and place it on of from next between '
    'alphabet basket bbq black bottom bowl box butter cabinet center cheese chocolate cookie cream '
    'drawer dressing juice ketchup milk orange plate pudding ramekin salad sauce soup stove table '
    'tomato top wooden'
)


def write_untrained_weights(policy_dir: Path, config: VLAConfig, seed: int = 0) -> Manifest:
    """Write a policy folder with weights and no graphs; ``models/export_trt.py`` makes those.

    :param policy_dir: Created; must not exist or be empty.
    :raises FileExistsError: When the folder holds something.
    """
    policy_dir = new_folder(policy_dir)
    torch.manual_seed(seed)
    model = LightVLA(config)
    # Words of one length in random directions: else all queries of the pruner are the same one.
    torch.nn.init.normal_(model.language_model.model.embed_tokens.weight)
    save_file(model.state_dict(), policy_dir / 'model.safetensors')
    _word_tokenizer().save(str(policy_dir / 'tokenizer.json'))
    fields = config.to_dict()
    del fields['action_slice']  # the manifest's own field
    document = manifest_document('untrained-weights', config.image_size, config.patch_size)
    document |= {
        'prompt': document['prompt'] | {'append_ids': [END_OF_PROMPT], 'length': PROMPT_LENGTH},
        'tokens': {'patch_size': config.patch_size, 'buckets': [config.patches]},
        'model': {'config': fields, 'weights': ['model.safetensors']},
        'provenance': {'generator': __name__, 'seed': seed, 'trained': False},
    }
    return write_manifest(policy_dir, document)


def _word_tokenizer() -> Tokenizer:
    special = {'<pad>': PAD, '<s>': BOS, '</s>': STOP, '<unk>': UNKNOWN, '</prompt>': END_OF_PROMPT}
    vocabulary = special | {word: index for index, word in enumerate(WORDS.split(), len(special))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token='<unk>'))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex('[:?]'), behavior='isolated'),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single='<s> $A', special_tokens=[('<s>', BOS)]
    )
    return tokenizer
