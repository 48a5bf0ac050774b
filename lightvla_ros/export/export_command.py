"""The command line of ``models/export_trt.py``.

What needs PyTorch is imported where it is used: engines for an exported policy are built on the
robot's computer, which has none.
"""

from __future__ import annotations

import argparse
import math
import shutil
import time
from dataclasses import asdict
from pathlib import Path

from lightvla_ros.contract import ContractError, amend_manifest, load_manifest
from lightvla_ros.export.bucket_fit import act_flops, choose_buckets
from lightvla_ros.export.errors import ExportError
from lightvla_ros.instruction import InstructionError
from lightvla_ros.manifest import Manifest
from lightvla_ros.new_folder import new_folder
from lightvla_ros.vla.config import ConfigError, PrunerConfig, VLAConfig, first_layers, preset
from lightvla_ros.vla.errors import CheckpointError

FAULTS = (
    CheckpointError,
    ConfigError,
    ContractError,
    ExportError,
    FileExistsError,
    InstructionError,
)
TARGETS = ('tensorrt', 'tensorrt-rtx')
BYTES = {'fp32': 4, 'fp16': 2, 'bf16': 2}
SECONDS, SECONDS_PER_GB = 20, 10  # to trace and write, measured on two cores


class Steps:
    """Prints each step with the time that has passed."""

    def __init__(self) -> None:
        self._started = time.perf_counter()

    def __call__(self, text: str) -> None:
        """Print a line."""
        print(f'[{time.perf_counter() - self._started:6.1f} s] {text}', flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and export; return the exit code."""
    parsed = _parser().parse_args(arguments)
    try:
        _run(parsed, Steps())
    except FAULTS as error:
        print(f'export_trt: {error}')
        return 1
    except ModuleNotFoundError as error:
        print(f"export_trt: {error}; an export needs pip install 'lightvla_ros[train]'")
        return 1
    return 0


def _run(parsed: argparse.Namespace, say: Steps) -> None:
    if parsed.preset:
        _prove(parsed, say)
        return
    source = parsed.policy or parsed.checkpoint
    manifest = load_manifest(parsed.policy) if parsed.policy else None
    built = manifest is not None and manifest.graphs is not None and parsed.out is None
    if built:
        _check_built(parsed, manifest)
        print('\n'.join(_build_estimate(parsed, manifest)))
    elif parsed.out is None:
        raise ExportError('--out DIR is missing: where shall the exported policy lie?')
    precision = parsed.precision or ('fp32' if parsed.target == 'onnx' else 'fp16')
    if parsed.target == 'onnx' and precision == 'bf16':
        raise ExportError('--precision bf16 is for TensorRT; ONNX Runtime takes fp32 or fp16')
    if not built:
        config, length = _model(parsed, manifest)
        context = context_length(config, length)
        buckets = choose_buckets(parsed.buckets, parsed.histogram, config, context)
        print('\n'.join(_estimate(source, config, precision, buckets, context, parsed)))
    if parsed.dry_run:
        return
    folder = parsed.policy if built else parsed.out
    if not built:
        _export(parsed, precision, buckets, say)
    if parsed.target != 'onnx':
        _build(folder, parsed, say)
    print(f'next: lightvla verify {folder}')


def _prove(parsed: argparse.Namespace, say: Steps) -> None:
    """Build layers of a preset's shapes without a GPU."""
    if parsed.target != 'tensorrt-rtx':
        raise ExportError('--preset only proves that shapes build: add --target tensorrt-rtx')
    from lightvla_ros.export.shape_proof import prove
    from lightvla_ros.vla.import_policy import PROMPT_LENGTH

    config = first_layers(preset(parsed.preset), parsed.layers)
    buckets = choose_buckets(
        parsed.buckets, parsed.histogram, config, context_length(config, PROMPT_LENGTH)
    )
    prove(config, parsed.precision or 'fp16', PROMPT_LENGTH, buckets, say)


def context_length(config: VLAConfig, prompt_length: int) -> int:
    """Tokens of the sequence besides the visual ones: BOS and words, proprio, slots, stop."""
    return prompt_length + int(config.proprio_size > 0) + config.action_slots + 1


def _check_built(parsed: argparse.Namespace, manifest: Manifest) -> None:
    """Refuse what would need another export of a folder that has one."""
    if parsed.target == 'onnx':
        raise ExportError(f'{parsed.policy}: is exported already; name --out for another export')
    for option in ('precision', 'histogram', 'observations'):
        if getattr(parsed, option) is not None:
            raise ExportError(
                f'--{option} was settled when {parsed.policy} was exported; export from the '
                'folder with weights, with --out, to change it'
            )


def _model(parsed: argparse.Namespace, manifest: Manifest | None) -> tuple[VLAConfig, int]:
    """Return the configuration of what is exported, and its prompt length."""
    if manifest is None:
        from lightvla_ros.vla.checkpoint import read_published
        from lightvla_ros.vla.import_policy import PROMPT_LENGTH, check_published

        published = read_published(parsed.checkpoint, pruning=PrunerConfig(parsed.pruning))
        check_published(published, parsed.unnorm_key)
        return published.config, PROMPT_LENGTH
    if manifest.model is None:
        raise ExportError(f'{parsed.policy}: holds no weights; export from the folder that does')
    return VLAConfig.from_dict(manifest.model.config), manifest.prompt.length


def _export(
    parsed: argparse.Namespace, precision: str, buckets: tuple[int, ...], say: Steps
) -> None:
    from lightvla_ros.export.export_policy import add_graphs, copy_weights
    from lightvla_ros.vla.import_policy import import_policy

    out: Path = parsed.out
    created = not out.exists()
    new_folder(out)
    try:
        if parsed.policy:
            copy_weights(parsed.policy, out)
        else:
            say('importing the checkpoint')
            import_policy(
                parsed.checkpoint, out, unnorm_key=parsed.unnorm_key, pruning=parsed.pruning
            )
        add_graphs(
            out,
            precision=precision,
            buckets=buckets,
            observations=parsed.observations,
            keep_weights=not parsed.no_weights,
            say=say,
        )
    except BaseException:  # also Ctrl-C: half a policy is none
        shutil.rmtree(out, ignore_errors=True)
        if not created:
            out.mkdir()
        raise


def _build(folder: Path, parsed: argparse.Namespace, say: Steps) -> None:
    from lightvla_ros.export.tensorrt_build import build_engines

    manifest = load_manifest(folder)
    built = build_engines(folder, manifest, parsed.target, workspace=parsed.workspace, progress=say)
    for plan in built.plans:
        buckets = f', profiles {list(plan.profiles)}' if plan.profiles else ''
        say(
            f'{built.target} {built.version} {plan.graph}: {plan.nbytes / 1e6:.1f} MB in '
            f'{plan.seconds:.1f} s{buckets}'
        )
    if built.engine is not None:
        engines = [asdict(e) for e in manifest.engines]
        engines = [e for e in engines if e['fingerprint'] != built.engine['fingerprint']]
        amend_manifest(folder, new_files=built.files, engines=[*engines, built.engine])


def _estimate(
    source: Path,
    config: VLAConfig,
    precision: str,
    buckets: tuple[int, ...],
    context: int,
    parsed: argparse.Namespace,
) -> list[str]:
    """Say what will be made, and what it takes."""
    from lightvla_ros.vla.dropped import used_shapes

    sizes = {'encode': 0, 'act': 0, 'embedding': 0}
    for name, shape in used_shapes(config).items():
        part = 'act' if name.startswith(('language_model', 'action_head')) else 'encode'
        part = 'embedding' if 'embed_tokens' in name else part
        sizes[part] += math.prod(shape) * (4 if part == 'embedding' else BYTES[precision])
    total = sum(sizes.values())
    weights = '' if parsed.no_weights else ', and the weights (hard links where possible)'
    seconds = SECONDS + SECONDS_PER_GB * total / 1e9
    return [
        f'{source} -> {parsed.out}: target {parsed.target}, {precision}',
        *(f'  {name:10} {size / 1e9:8.3f} GB' for name, size in sizes.items()),
        f'  disk       {total / 1e9:8.3f} GB{weights}',
        f'  memory     about {total / 1e9 + 1:.0f} GB, most of it mapped files',
        f"  time       about {seconds:.0f} s for the graphs, besides PyTorch's golden answers"
        + ('' if parsed.target == 'onnx' else ' and the engines'),
        '  buckets    '
        + ', '.join(f'{b} ({act_flops(config, context, b) / 1e12:.3g} TFLOP)' for b in buckets),
    ]


def _build_estimate(parsed: argparse.Namespace, manifest: Manifest) -> list[str]:
    """Say which engines will be built of an exported folder, and what they take."""
    graphs = manifest.graphs
    sizes = {
        name: sum(path.stat().st_size for path in parsed.policy.glob(f'{name}*'))
        for name in (graphs.encode, graphs.act)
    }
    total = sum(sizes.values())
    workspace = 'all there is' if parsed.workspace is None else f'{parsed.workspace} MiB a layer'
    return [
        f'{parsed.policy}: engines for {parsed.target}',
        *(f'  {name:12} {size / 1e9:8.3f} GB' for name, size in sizes.items()),
        f'  profiles of {graphs.act}: {", ".join(map(str, manifest.tokens.buckets))}',
        f'  disk and memory: about {total / 1e9:.3f} GB more; workspace: {workspace}',
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='export_trt.py',
        description='Export a policy for deployment: two ONNX graphs, and engines for a GPU.',
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--policy', type=Path, metavar='DIR', help='a policy folder with weights')
    source.add_argument(
        '--preset', metavar='NAME', help='random weights; with --layers and --target tensorrt-rtx'
    )
    source.add_argument('--checkpoint', type=Path, metavar='DIR', help='a published checkpoint')
    parser.add_argument(
        '--out', type=Path, metavar='DIR', help='new folder; leave out to add engines to --policy'
    )
    parser.add_argument('--target', choices=('onnx', *TARGETS), default='onnx')
    parser.add_argument(
        '--precision', choices=tuple(BYTES), help='default fp32 for onnx, else fp16'
    )
    parser.add_argument('--buckets', default='auto', metavar='auto|64,96,...')
    parser.add_argument(
        '--histogram', type=Path, metavar='FILE', help='counts of kept tokens, for --buckets auto'
    )
    parser.add_argument(
        '--observations', type=Path, metavar='FILE.npz', help='recorded, for the golden answers'
    )
    parser.add_argument('--workspace', type=int, metavar='MIB', help='of TensorRT, per layer')
    parser.add_argument('--layers', type=int, default=2, help='of --preset [2]')
    parser.add_argument('--no-weights', action='store_true', help='leave the weights out of --out')
    parser.add_argument('--dry-run', action='store_true', help='say what would be made, and stop')
    checkpoint = parser.add_argument_group('with --checkpoint')
    checkpoint.add_argument('--unnorm-key', metavar='KEY', help='of dataset_statistics.json')
    checkpoint.add_argument('--pruning', choices=('lightvla', 'off'), default='lightvla')
    return parser
