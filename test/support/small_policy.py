"""The true model at a size that exports in seconds, and its export."""

import json
from dataclasses import replace

from lightvla_ros.contract import MANIFEST_NAME, amend_manifest
from lightvla_ros.export.export import add_graphs, copy_weights
from lightvla_ros.export.untrained import write_untrained_weights
from lightvla_ros.verify.verify import verify, write_verifications
from lightvla_ros.vla.config import (
    TRAINING_FREE,
    LanguageConfig,
    PrunerConfig,
    TowerConfig,
    VLAConfig,
)
from lightvla_ros.vla.word_tokenizer import PROMPT_LENGTH

BUCKETS = (4, 16, 32)
ROBOT_BUCKETS = (16, 32, 64, 96, 128)


def small_config(method='lightvla', image_size=64):
    share = 0.3 if method in TRAINING_FREE else None
    tower = TowerConfig(width=32, depth=2, heads=2, mlp_width=64)
    return VLAConfig(
        dino=replace(tower, registers=2, class_token=True, layer_scale=True),
        siglip=tower,
        language=LanguageConfig(width=64, layers=2, heads=2, mlp_width=96, vocabulary=80),
        projector_width=64,
        head_width=32,
        pruning=PrunerConfig(method, queries=6, layer=1, share=share),
        image_size=image_size,
        patch_size=16,
    )


def write_weights(folder, method='lightvla'):
    """A folder with weights alone."""
    write_untrained_weights(folder, small_config(method), seed=1)
    return folder


def export(weights, out, precision='fp32', **options):
    """Its export; returns the folder."""
    copy_weights(weights, out)
    add_graphs(out, precision=precision, buckets=BUCKETS, say=lambda _: None, **options)
    return out


def write_robot_policy(folder, prompt_length=PROMPT_LENGTH):
    """What a robot is given: graphs alone, verified; 64 patches of each camera, mirrored views."""
    write_untrained_weights(folder, small_config(image_size=128), seed=1)
    prompt = json.loads((folder / MANIFEST_NAME).read_text())['prompt']
    amend_manifest(folder, prompt=prompt | {'length': prompt_length})
    quiet = {'say': lambda _: None}
    add_graphs(folder, precision='fp32', buckets=ROBOT_BUCKETS, keep_weights=False, **quiet)
    found, _ = verify(folder, only='onnxruntime')
    write_verifications(folder, found)
    return folder
