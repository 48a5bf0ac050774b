"""A policy whose weights lie between those of two others, such as before and after a run."""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor

from lightvla_ros import __version__
from lightvla_ros.contract import MANIFEST_NAME, Manifest, load_manifest
from lightvla_ros.errors import TrainError
from lightvla_ros.train.preparation import BEHIND_THE_CHOICE, VISUAL_TOKENS
from lightvla_ros.train.start import UNTRUE_AFTER_TRAINING
from lightvla_ros.train.weights import between, write_policy
from lightvla_ros.vla.weights import config_of, load_model

PARTS = {'all': ('',), 'tokens': VISUAL_TOKENS, 'decoder': BEHIND_THE_CHOICE}
SAME = ('cameras', 'action', 'proprio', 'preprocessing')  # of the manifests


def average(first: Path, second: Path, share: float, parts: str, out: Path) -> Manifest:
    """Write the policy at a share of the way from one policy to another (``weights.between``).

    :param share: 0 for the weights of ``first``, 1 for those of ``second``.
    :param parts: What is averaged, of :data:`PARTS`: ``all``, ``tokens`` (towers and projector) or
        ``decoder`` (its layers and the head). All else is of ``second``.
    :param out: New folder with weights, to be exported. Its provenance names both policies.
    :raises TrainError: When the two do not mean the same by their weights.
    :raises ContractError: When a folder cannot be trusted or holds no weights.
    :raises FileExistsError: When ``out`` is not empty.
    """
    one, two = load_model(first).state_dict(), load_model(second).state_dict()
    manifests = load_manifest(first), load_manifest(second)
    _check_same(*manifests, first, second)
    weights: dict[str, Tensor] = {}
    for name, end in two.items():
        weights[name] = end
        if name.startswith(PARTS[parts]):
            doubled = between({name: one[name].double()}, {name: end.double()}, share)
            weights[name] = doubled[name].to(end.dtype)
    document = json.loads((second / MANIFEST_NAME).read_text()) | UNTRUE_AFTER_TRAINING
    config = config_of(manifests[1])
    document['model'] = {'config': document['model']['config']}
    document['tokens'] = {'patch_size': config.patch_size, 'buckets': [config.patches]}
    provenance = {
        'generator': f'lightvla_ros {__version__} average',
        'trained': True,
        'average': {
            'first': {'name': manifests[0].name, 'fingerprint': manifests[0].fingerprint},
            'second': {'name': manifests[1].name, 'fingerprint': manifests[1].fingerprint},
            'share': share,
            'parts': parts,
        },
    }
    tokenizer = second / manifests[1].prompt.tokenizer
    return write_policy(out, weights, document, tokenizer, provenance)


def _check_same(one: Manifest, two: Manifest, first: Path, second: Path) -> None:
    """Refuse policies of other shapes or another contract.

    :raises TrainError: When they differ.
    """
    differing = [name for name in SAME if getattr(one, name) != getattr(two, name)]
    if config_of(one) != config_of(two):
        differing.insert(0, 'model')
    if not _extends(first / one.prompt.tokenizer, second / two.prompt.tokenizer):
        differing.append('tokenizer (only the second may know more words, by model.words)')
    if differing:
        raise TrainError(
            f'{first} and {second} differ in {", ".join(differing)}: only policies of which one '
            'was trained from the other, or both from a third, can be averaged'
        )


def _extends(fewer: Path, more: Path) -> bool:
    """Return whether two tokenizers are equal but for words that only the second has."""
    one, two = (json.loads(path.read_text(encoding='utf-8')) for path in (fewer, more))
    words, all_words = one['model'].pop('vocab', {}), two['model'].pop('vocab', {})
    if not (isinstance(words, dict) and isinstance(all_words, dict)):
        return one == two and words == all_words
    return one == two and words.items() <= all_words.items()
