"""Makes golden observations, with which engines are compared, and returns their pictures.

The form of the arrays is described at :func:`observations`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightvla_ros.contract import Manifest
from lightvla_ros.policy.golden_file import read_golden
from lightvla_ros.policy.observation import observations
from lightvla_ros.policy.policy import Policy
from lightvla_ros.policy.preprocessor import fitted

INSTRUCTIONS = (
    'hold',
    'pick up the alphabet soup and place it in the basket',
    'pick up the black bowl between the plate and the ramekin and place it on the plate',
)
BLOCK = 20  # px; side of a square of one colour, so that JPEG and resizing change something
SIDE = 8 * BLOCK


def random_inputs(manifest: Manifest, count: int, seed: int) -> dict[str, np.ndarray]:
    """Draw random observations: coloured squares, states within the bounds, some instructions."""
    random = np.random.default_rng([seed, 1])
    coarse = random.integers(0, 256, (count, len(manifest.cameras), 8, 8, 3), np.uint8)
    width = round(SIDE * manifest.cameras[0].aspect)
    inputs = {
        'images': np.repeat(coarse, BLOCK, axis=2)[..., np.arange(width) * 8 // width, :],
        'instruction': np.array([INSTRUCTIONS[i % len(INSTRUCTIONS)] for i in range(count)]),
    }
    if manifest.proprio is not None:
        low, high = np.array(manifest.proprio.q01), np.array(manifest.proprio.q99)
        inputs['proprio'] = random.uniform(low, high, (count, len(low)))
    return inputs


def record(policy: Policy, inputs: dict[str, np.ndarray], path: Path) -> None:
    """Run a policy on observations and write both as a file of golden observations."""
    kept, actions = [], []
    for observation in observations(policy.manifest, inputs):
        prediction = policy.infer(observation)
        kept.append(np.isin(np.arange(policy.manifest.tokens.buckets[-1]), prediction.kept_patches))
        actions.append(prediction.normalised)
    arrays: dict[str, Any] = {**inputs, 'kept': np.array(kept), 'actions': np.array(actions)}
    np.savez_compressed(path, **arrays)


def is_drawn(manifest: Manifest, arrays: dict[str, np.ndarray]) -> bool:
    """Return whether golden observations have drawn pictures instead of recorded ones.

    :param arrays: Of a file of golden observations.
    """
    images = arrays['images']
    blocks = images[:, :, ::BLOCK]
    # of a drawn picture each band of BLOCK rows is one row
    return images.shape[2] == SIDE and bool((np.repeat(blocks, BLOCK, axis=2) == images).all())


@dataclass(frozen=True)
class References:
    """What a policy folder has recorded of its training data.

    :param pictures: By camera, uint8 [N, H, W, 3], upright, with the policy's aspect ratio.
    :param states: float [N, S]; None for a policy that takes no state.
    """

    pictures: dict[str, np.ndarray]
    states: np.ndarray | None


def references(policy_dir: Path, manifest: Manifest) -> References | None:
    """Return the recorded observations of a folder; None if its golden ones are drawn at random.

    :raises ContractError: When it has no golden observations, or they are damaged.
    """
    golden = read_golden(policy_dir, manifest)
    if is_drawn(manifest, golden):
        return None
    images = golden['images']
    pictures = {
        camera.name: np.array([fitted(image, camera) for image in images[:, slot]])
        for slot, camera in enumerate(manifest.cameras)
    }
    return References(pictures, golden.get('proprio'))
