"""`lightvla train`: trains a policy on demonstrations.

``models/train.py`` also runs this command, for ``torchrun``.
"""

from __future__ import annotations

import argparse
import json
import signal
from contextlib import nullcontext
from pathlib import Path

from lightvla_ros.errors import ArgumentError, TrainError
from lightvla_ros.files import lock_beside, one_writer
from lightvla_ros.train.config import TrainConfig
from lightvla_ros.train.config_file import from_dict, read_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``lightvla train``."""
    parser.add_argument(
        '--config', type=Path, required=True, metavar='FILE', help='what is trained, as YAML'
    )
    parser.add_argument(
        '--out',
        type=Path,
        metavar='DIR',
        help='folder of the run; default: out/train/NAME-OF-CONFIG',
    )
    parser.add_argument(
        '--resume', action='store_true', help='continue the run from its checkpoint'
    )
    parser.add_argument(
        '--dry-run',
        action='store_true',
        help='train nothing: check the configuration, say what is trained, and estimate the memory',
    )
    parser.add_argument(
        '--like',
        metavar='NAME',
        help='preset or policy folder with the shapes of a model.from that is not there yet; only '
        'with --dry-run',
    )
    parser.add_argument(
        '--write-policy',
        type=Path,
        metavar='CHECKPOINT',
        help='train nothing: write the policy of a checkpoint, or of the folder of a run, to --out',
    )


def run(parsed: argparse.Namespace) -> int:
    """Train, say what a run would be, or write the policy of a checkpoint.

    :returns: 0; 2 when the run was stopped before its end.
    """
    if parsed.dry_run and (parsed.resume or parsed.write_policy):
        raise ArgumentError('--dry-run excludes --resume and --write-policy; leave them out')
    if parsed.like and not parsed.dry_run:
        raise ArgumentError('--like needs --dry-run: a run needs the model itself')
    config = read_config(parsed.config)
    if parsed.write_policy is not None:
        return _write(parsed.write_policy, parsed.out)
    out = parsed.out or Path('out/train') / parsed.config.stem
    if parsed.dry_run:
        from lightvla_ros.train.dry_run import dry_run

        print('\n'.join(dry_run(config, out, parsed.like)))
        return 0
    return 0 if train(config, out, parsed.resume) else 2


def train(config: TrainConfig, out: Path, resume: bool) -> bool:
    """Train, and say what comes next; SIGINT and SIGTERM stop it after a checkpoint.

    :returns: Whether the last step was reached.
    """
    from lightvla_ros.train.parallel import join, leave
    from lightvla_ros.train.run import Run

    place = join(config.parallel)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        # only one of several processes writes
        with one_writer(out) if place.rank == 0 else nullcontext():
            training = Run(config, out, place, resume=resume)
            for number in before:
                signal.signal(number, lambda *_: training.stop())
            done = training.train()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        leave()
    if place.rank == 0 and done:
        print(f'{out}/policy: written; next: lightvla export --policy {out}/policy --out DIR')
    elif place.rank == 0:
        print(f'stopped at step {training.step}; continue with --resume')
    return done


def _write(checkpoint: Path, out: Path | None) -> int:
    """Write the policy of a checkpoint, which may be that of an unfinished run."""
    from lightvla_ros.train.checkpoint import CHECKPOINT, load_checkpoint
    from lightvla_ros.train.model_config import policy_folder
    from lightvla_ros.train.start import DOCUMENT, TOKENIZER
    from lightvla_ros.train.weights import between, write_policy

    if out is None:
        raise TrainError('--write-policy: --out DIR is missing; give a folder for the policy')
    if checkpoint.is_dir():
        checkpoint = checkpoint / CHECKPOINT
    state = load_checkpoint(checkpoint)
    folder = checkpoint.parent
    weights = state['mean'] or state['weights']
    config = from_dict(state['config'])
    if config.interpolation < 1:
        weights = between(state['start'], weights, config.interpolation)
    weights |= state['frozen']
    if config.lora is not None:
        from lightvla_ros.train.lora import merge_adapters
        from lightvla_ros.vla.weights import load_model

        frozen = load_model(policy_folder(config.model)).state_dict()
        weights = merge_adapters(frozen, weights, config.lora.alpha / config.lora.rank)
    document = json.loads((folder / DOCUMENT).read_text(encoding='utf-8'))
    out = out.resolve()
    with one_writer(out, lock_beside(out)):
        write_policy(out, weights, document, folder / TOKENIZER, state['provenance'])
    print(f'{out}: written, from step {state["step"]}')
    return 0
