"""The true model at a size that exports in seconds, and its export."""

from dataclasses import replace

from lightvla_ros.export.export_policy import add_graphs, copy_weights
from lightvla_ros.export.untrained_weights import write_untrained_weights
from lightvla_ros.vla.config import LanguageConfig, PrunerConfig, TowerConfig, VLAConfig

BUCKETS = (4, 16, 32)


def small_config(method='lightvla'):
    tower = TowerConfig(width=32, depth=2, heads=2, mlp_width=64)
    return VLAConfig(
        dino=replace(tower, registers=2, class_token=True, layer_scale=True),
        siglip=tower,
        language=LanguageConfig(width=64, layers=2, heads=2, mlp_width=96, vocabulary=80),
        projector_width=64,
        head_width=32,
        pruning=PrunerConfig(method, queries=6, layer=1),
        image_size=64,
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
