"""``lightvla calibrate``: measures the decoder's activations, which fp8 needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from lightvla_ros.contract import amend_manifest, load_manifest
from lightvla_ros.engine.torch import TorchEngine
from lightvla_ros.errors import ExportError
from lightvla_ros.policy.golden_file import read_golden
from lightvla_ros.policy.observation import observations
from lightvla_ros.policy.policy import Policy
from lightvla_ros.vla.fp8 import measure_activations


def calibrate(policy_dir: Path, inputs: dict[str, np.ndarray] | None = None) -> tuple[int, float]:
    """Run the model in fp32 on observations and store its largest activations in the manifest.

    :param inputs: Recorded observations, see ``observations.py``; the golden ones when None.
    :returns: Number of observations, and the largest activation.
    :raises ContractError: When the folder cannot be trusted or holds no golden observations.
    :raises ExportError: When it holds no weights, or an activation is not finite.
    """
    manifest = load_manifest(policy_dir)
    if manifest.model is None:
        raise ExportError(f'{policy_dir}: holds no weights; calibrate the folder that does')
    if inputs is None:
        inputs = read_golden(policy_dir, manifest)
    engine = TorchEngine(policy_dir, manifest, threads=torch.get_num_threads())
    seen = observations(manifest, inputs)
    with (
        Policy(policy_dir, manifest, engine) as policy,
        measure_activations(engine.model.language_model.model) as largest,
    ):
        for observation in seen:
            policy.infer(observation)
    most = float(np.max(largest))
    if not np.isfinite(largest).all() or np.min(largest) <= 0:
        raise ExportError(f'{policy_dir}: activations are zero or not finite, so fp8 has no scale')
    amend_manifest(policy_dir, fp8={'largest': largest, 'observations': len(seen)})
    return len(seen), most
