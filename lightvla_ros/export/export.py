"""Exports a policy folder with weights to a folder with graphs that a robot can run."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import torch

from lightvla_ros import __version__
from lightvla_ros.contract import MANIFEST_NAME, Manifest, amend_manifest, load_manifest
from lightvla_ros.engine.torch import TorchEngine
from lightvla_ros.errors import ExportError
from lightvla_ros.export.onnx_files import (
    OPSET,
    write_act,
    write_embedding,
    write_encode,
)
from lightvla_ros.files import new_folder
from lightvla_ros.policy.golden import random_inputs, record
from lightvla_ros.policy.policy import Policy
from lightvla_ros.policy.tolerances import TOLERANCES
from lightvla_ros.vla.config import PrunerConfig
from lightvla_ros.vla.weights import StoredWeights, config_of

GOLDEN, SEED = 3, 0
Say = Callable[[str], None]


def copy_weights(policy_dir: Path, out: Path, pruning: PrunerConfig | None = None) -> None:
    """Make a new folder with a policy's weights, tokenizer and manifest, without its graphs.

    Regular files are hard-linked if the file system supports it, so that 15 GB are not stored
    twice. The target of a symbolic link is copied, because another program's cache may change or
    be cleared.

    :param pruning: How the new folder's model prunes; None: as the old one's.
    :raises ExportError: When the policy folder has no weights.
    :raises FileExistsError: When the new folder is not empty.
    """
    manifest = load_manifest(policy_dir)
    if manifest.model is None:
        raise ExportError(
            f'{policy_dir}: holds no weights, only graphs; export from the original folder'
        )
    new_folder(out)
    names = [manifest.prompt.tokenizer, *manifest.model.weights]
    for name in names:
        _place(policy_dir / name, out / name)
    shutil.copyfile(policy_dir / MANIFEST_NAME, out / MANIFEST_NAME)
    changes = {}
    if pruning is not None:
        config = manifest.model.config | {'pruning': asdict(pruning)}
        # scales of fp8 were measured with the tokens that the old rule kept
        weights = list(manifest.model.weights)
        changes = {'model': {'config': config, 'weights': weights}, 'fp8': None}
    amend_manifest(
        out,
        dropped_files=sorted(manifest.files.keys() - set(names)),
        **changes,
        graphs=None,
        golden=None,
        familiarity=None,
        engines=[],
        verified=[],
    )


def _place(source: Path, target: Path) -> None:
    if not source.is_symlink():
        try:
            os.link(source, target)
            return
        except OSError:  # a different file system, or one without hard links
            pass
    shutil.copyfile(source, target)


def add_graphs(
    policy_dir: Path,
    *,
    precision: str | None,
    buckets: Sequence[int],
    inputs: dict[str, np.ndarray] | None = None,
    keep_weights: bool = True,
    say: Say = print,
) -> Manifest:
    """Write graphs, table of embeddings and golden observations into a folder with weights.

    PyTorch computes the golden answers in fp32; only this step needs the whole model in memory.

    :param precision: What the graphs compute in; None writes no graphs, for an engine that runs the
        weights.
    :param inputs: Recorded observations, see ``observations.py``; without them pictures of coloured
        squares are drawn.
    :param keep_weights: Whether the weights stay in the folder; a robot does not need them.
    :raises ExportError: When a part cannot be exported.
    """
    manifest = load_manifest(policy_dir)
    say('reading the weights')
    engine = TorchEngine(policy_dir, manifest, threads=torch.get_num_threads())
    policy = Policy(policy_dir, manifest, engine)
    say('golden observations, answered by PyTorch in fp32')
    if inputs is None:
        inputs = random_inputs(manifest, GOLDEN, SEED)
    record(policy, inputs, policy_dir / 'golden.npz')
    policy.close()
    files, graphs = ['golden.npz'], None
    if precision is not None:
        files += _write_graphs(policy_dir, manifest, precision, say)
        graphs = {
            'encode': 'encode.onnx',
            'act': 'act.onnx',
            'embedding': 'embedding.npy',
            'precision': precision,
        }
    say('hashing and writing the manifest')
    changes = {} if keep_weights else {'model': None}
    dropped = [] if keep_weights else list(manifest.model.weights)
    for name in dropped:
        (policy_dir / name).unlink()
    limits = TOLERANCES[precision or 'fp32']
    return amend_manifest(
        policy_dir,
        new_files=files,
        dropped_files=dropped,
        graphs=graphs,
        golden={
            'file': 'golden.npz',
            'action_tolerance': limits.action_tolerance,
            'min_jaccard': limits.min_jaccard,
        },
        tokens={'patch_size': manifest.tokens.patch_size, 'buckets': list(buckets)},
        provenance=manifest.provenance
        | {
            'export': {
                'pruning': config_of(manifest).pruning.name,
                'opset': OPSET,
                'lightvla_ros': __version__,
                'torch': torch.__version__,
                'onnx': onnx.__version__,
            }
        },
        **changes,
    )


def _write_graphs(policy_dir: Path, manifest: Manifest, precision: str, say: Say) -> list[str]:
    """Write both graphs and the table of embeddings; return the names of the files."""
    weights = StoredWeights(policy_dir, manifest.model.weights)
    say('embedding.npy')
    write_embedding(weights, policy_dir / 'embedding.npy')
    files = ['embedding.npy']
    for name, write in (('encode.onnx', write_encode), ('act.onnx', write_act)):
        say(f'{name} in {precision}')
        files += write(
            config_of(manifest),
            weights,
            precision,
            manifest.prompt.length,
            policy_dir / name,
            _Reporter(name, say),
        )
    return files


class _Reporter:
    """Reports every ten seconds how much of a file is written and the estimated time left."""

    def __init__(self, name: str, say: Say) -> None:
        self._name, self._say = name, say
        self._begun = (0.0, 0)  # time at which the first weight was written, and its bytes
        self._said = 0.0

    def __call__(self, written: int, total: int) -> None:
        now = time.perf_counter()
        if not self._said:
            self._begun, self._said = (now, written), now
        if now - self._said > 10:
            started, first = self._begun
            left = (now - started) * (total - written) / (written - first)
            done = f'{written / 1e9:.1f} of {total / 1e9:.1f} GB'
            self._say(f'{self._name}: {done}, about {left:.0f} s left')
            self._said = now
