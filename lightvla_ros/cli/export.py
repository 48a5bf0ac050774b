"""`lightvla export`: exports a policy to ONNX graphs or for `torch-cuda`, and builds engines.

PyTorch is imported only where it is used, because engines are built on the robot's computer, which
does not have it. ``models/export_trt.py`` also runs this command.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from lightvla_ros.cli.arguments import parse_count, parse_pruning
from lightvla_ros.contract import Manifest, load_manifest
from lightvla_ros.errors import ExportError
from lightvla_ros.export.buckets import choose_buckets
from lightvla_ros.export.estimates import BYTES, build_estimate, export_estimate
from lightvla_ros.export.observations import read_observations
from lightvla_ros.export.tensorrt.build import TARGETS, build_engines, check_target
from lightvla_ros.files import lock_beside, one_writer, whole_folder
from lightvla_ros.vla.config import (
    TRAINING_FREE,
    PrunerConfig,
    VLAConfig,
    first_layers,
    preset,
)

WEIGHTS_ALONE = 'torch-cuda'
# Options that only some sources accept
ONLY = {
    'policy': {'out', 'observations', 'no_weights', 'dry_run', 'pruning'},
    'checkpoint': {'out', 'observations', 'no_weights', 'dry_run', 'unnorm_key', 'pruning'},
    'preset': {'layers'},
}


class Steps:
    """Prints each step with the time that has passed."""

    def __init__(self) -> None:
        self._started = time.perf_counter()

    def __call__(self, text: str) -> None:
        """Print a line."""
        print(f'[{time.perf_counter() - self._started:6.1f} s] {text}', flush=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``lightvla export``."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--policy', type=Path, metavar='DIR', help='a policy folder with weights')
    source.add_argument('--checkpoint', type=Path, metavar='DIR', help='a published checkpoint')
    source.add_argument(
        '--preset',
        metavar='NAME',
        help='random weights of a model, to prove that its shapes build; only with '
        '--target tensorrt-rtx',
    )
    parser.add_argument(
        '--out',
        type=Path,
        metavar='DIR',
        help='folder to create; without it, engines are added to --policy',
    )
    parser.add_argument(
        '--target',
        choices=('onnx', WEIGHTS_ALONE, *TARGETS),
        default='onnx',
        help='what is built; onnx: graphs alone; torch-cuda: no graphs, because that engine runs '
        'the weights; default: onnx',
    )
    parser.add_argument(
        '--precision',
        choices=tuple(BYTES),
        help='what the graphs compute in; default: fp32 for onnx, else fp16',
    )
    parser.add_argument(
        '--buckets',
        metavar='auto|64,96,...',
        help='numbers of kept tokens that a graph is built for; default: auto',
    )
    parser.add_argument(
        '--histogram', type=Path, metavar='FILE', help='counts of kept tokens, for --buckets auto'
    )
    parser.add_argument(
        '--observations',
        type=Path,
        metavar='FILE.npz',
        help='recorded observations, for the golden answers',
    )
    parser.add_argument(
        '--workspace',
        type=parse_count,
        metavar='MIB',
        help='memory that TensorRT may use for a layer',
    )
    parser.add_argument(
        '--layers', type=parse_count, metavar='N', help='layers of --preset; default: 2'
    )
    parser.add_argument('--no-weights', action='store_true', help='leave the weights out of --out')
    parser.add_argument('--dry-run', action='store_true', help='say what would be made, and stop')
    parser.add_argument(
        '--pruning',
        type=parse_pruning,
        metavar='METHOD',
        help='how the model prunes: lightvla, off, or a rule for one that was trained with every '
        'token, with the share of patches that it keeps: adp:SHARE or dart:SHARE; default: '
        'that of --policy, and of a --checkpoint lightvla',
    )
    parser.add_argument(
        '--unnorm-key',
        metavar='KEY',
        help='with --checkpoint: key of a data set in dataset_statistics.json',
    )


def run(parsed: argparse.Namespace) -> int:
    """Export, build, or both."""
    say = Steps()
    _check_options(parsed)
    if parsed.target in TARGETS and not parsed.dry_run:
        check_target(parsed.target)  # before minutes of export
    if parsed.preset:
        _prove(parsed, say)
        return 0
    manifest = load_manifest(parsed.policy) if parsed.policy else None
    if manifest is not None and manifest.golden is not None and parsed.out is None:
        _check_built(parsed)
        print('\n'.join(build_estimate(parsed.policy, manifest, parsed.target, parsed.workspace)))
        folder = parsed.policy
    else:
        _prepare_and_export(parsed, manifest, say)
        folder = parsed.out
    if parsed.dry_run:
        return 0
    if parsed.target in TARGETS:
        _build(folder, parsed, say)
    print(f'next: lightvla verify {folder}')
    return 0


def _check_options(parsed: argparse.Namespace) -> None:
    """Refuse options that belong to another source, instead of ignoring them."""
    source = next(name for name in ONLY if getattr(parsed, name) is not None)
    for name in sorted({each for names in ONLY.values() for each in names} - ONLY[source]):
        if getattr(parsed, name) not in (None, False):
            raise ExportError(f'--{name.replace("_", "-")} does not fit --{source}')
    if parsed.target == WEIGHTS_ALONE:
        for option in ('precision', 'no_weights'):
            if getattr(parsed, option) not in (None, False):
                raise ExportError(
                    f'--{option.replace("_", "-")} does not fit --target {WEIGHTS_ALONE}, which '
                    'runs the weights in a precision that lightvla verify passes'
                )
    if parsed.workspace is not None and parsed.target not in TARGETS:
        raise ExportError('--workspace works only with a TensorRT target; add --target')


def _prove(parsed: argparse.Namespace, say: Steps) -> None:
    """Test without a GPU that layers with a preset's shapes build."""
    if parsed.target != 'tensorrt-rtx':
        raise ExportError('--preset only tests that shapes build; add --target tensorrt-rtx')
    from lightvla_ros.export.import_checkpoint import PROMPT_LENGTH
    from lightvla_ros.export.shape_proof import prove

    layers = 2 if parsed.layers is None else parsed.layers
    config = first_layers(preset(parsed.preset), layers)
    context = config.context_length(PROMPT_LENGTH)
    buckets = choose_buckets(parsed.buckets or 'auto', parsed.histogram, config, context)
    precision = parsed.precision or 'fp16'
    prove(config, precision, PROMPT_LENGTH, buckets, say, parsed.workspace)


def _check_built(parsed: argparse.Namespace) -> None:
    """Refuse options that need a new export of a folder that is already exported."""
    if parsed.target not in TARGETS:
        raise ExportError(f'{parsed.policy}: is exported already; give --out for another export')
    if load_manifest(parsed.policy).graphs is None:
        raise ExportError(
            f'{parsed.policy}: was exported without graphs; give --out for an export with graphs'
        )
    for option in ('precision', 'buckets', 'histogram', 'observations', 'no_weights', 'pruning'):
        if getattr(parsed, option) not in (None, False):
            raise ExportError(
                f'--{option.replace("_", "-")} was fixed when {parsed.policy} was exported; '
                'to change it, export again from the folder with weights, with --out'
            )


def _prepare_and_export(parsed: argparse.Namespace, manifest: Manifest | None, say: Steps) -> None:
    if parsed.out is None:
        raise ExportError('--out DIR is missing: give a folder for the exported policy')
    precision = parsed.precision or ('fp32' if parsed.target == 'onnx' else 'fp16')
    if parsed.target == WEIGHTS_ALONE:
        precision = None
    config, length = _model(parsed, manifest)
    context = config.context_length(length)
    buckets = choose_buckets(parsed.buckets or 'auto', parsed.histogram, config, context)
    observations = None
    if parsed.observations is not None:
        observations = read_observations(parsed.observations, config.cameras, config.proprio_size)
    elif manifest is not None and manifest.golden is not None:  # they may be from a real robot
        file = parsed.policy / manifest.golden.file
        observations = read_observations(file, config.cameras, config.proprio_size)
        print(f'golden observations: {len(observations["images"])}, copied from {parsed.policy}')
    source = parsed.policy or parsed.checkpoint
    print(f'{source} -> {parsed.out}: target {parsed.target}, {precision or "no graphs"}')
    copied = parsed.checkpoint is not None
    print('\n'.join(export_estimate(config, precision, buckets, context, copied)))
    if not parsed.dry_run:
        _export(parsed, precision, buckets, observations, say)


def _model(parsed: argparse.Namespace, manifest: Manifest | None) -> tuple[VLAConfig, int]:
    """Return the configuration of the exported model, and its prompt length."""
    if manifest is None:
        from lightvla_ros.export.import_checkpoint import PROMPT_LENGTH, check_published
        from lightvla_ros.export.published import read_published

        pruning = parsed.pruning or PrunerConfig()
        published = read_published(parsed.checkpoint, pruning=pruning)
        for note in check_published(published, parsed.unnorm_key):
            print(f'lightvla export: note: {note}', file=sys.stderr)
        return published.config, PROMPT_LENGTH
    if manifest.model is None:
        raise ExportError(f'{parsed.policy}: holds no weights; export from the folder that does')
    config = VLAConfig.from_dict(manifest.model.config)
    if parsed.pruning is not None:
        config = _pruned(config, parsed.pruning, parsed.policy)
    return config, manifest.prompt.length


def _pruned(config: VLAConfig, pruning: PrunerConfig, policy: Path) -> VLAConfig:
    """Return a model with another rule, if neither it nor the old one has to be trained."""
    untrained = ('off', *TRAINING_FREE)
    if config.pruning.method not in untrained:
        raise ExportError(
            f'--pruning {pruning.name}: {policy} was trained to prune by {config.pruning.name}; '
            'compare methods with lightvla eval --prune'
        )
    if pruning.method not in untrained:
        raise ExportError(
            f'--pruning {pruning.name}: {policy} was trained with every token, and '
            f'{pruning.name} must be trained; {" and ".join(TRAINING_FREE)} need no training'
        )
    return replace(config, pruning=pruning)


def _export(
    parsed: argparse.Namespace,
    precision: str | None,
    buckets: tuple[int, ...],
    observations: dict[str, np.ndarray] | None,
    say: Steps,
) -> None:
    from lightvla_ros.export.export import add_graphs, copy_weights
    from lightvla_ros.export.import_checkpoint import import_policy

    out: Path = parsed.out
    with one_writer(out, lock_beside(out)), whole_folder(out):
        if parsed.policy:
            copy_weights(parsed.policy, out, parsed.pruning)
        else:
            say('importing the checkpoint')
            key, pruning = parsed.unnorm_key, parsed.pruning
            import_policy(parsed.checkpoint, out, unnorm_key=key, pruning=pruning)
        add_graphs(
            out,
            precision=precision,
            buckets=buckets,
            inputs=observations,
            keep_weights=not parsed.no_weights,
            say=say,
        )


def _build(folder: Path, parsed: argparse.Namespace, say: Steps) -> None:
    with one_writer(folder, lock_beside(folder)):
        manifest = load_manifest(folder)
        built = build_engines(
            folder, manifest, parsed.target, workspace=parsed.workspace, progress=say
        )
    for plan in built.plans:
        buckets = f', profiles {list(plan.profiles)}' if plan.profiles else ''
        say(
            f'{built.target} {built.version} {plan.graph}: {plan.nbytes / 1e6:.1f} MB in '
            f'{plan.seconds:.1f} s{buckets}'
        )
