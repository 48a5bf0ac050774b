"""Pairs observations with their actions."""

from __future__ import annotations

import numpy as np

NOOP_NORM = 1e-4  # of an action without its gripper; OpenVLA's regenerate_libero_dataset.py


def moving_steps(actions: np.ndarray) -> np.ndarray:
    """Find the steps that do something.

    The rule is that of OpenVLA's ``regenerate_libero_dataset.py`` (is_noop): an action is dropped
    when the norm of its first six numbers is below 1e-4 and its gripper's number is that of the
    last action kept; before the first one kept, the norm alone decides.

    :param actions: [T, 7].
    :returns: int64 [K], ascending.
    """
    still = np.linalg.norm(np.asarray(actions, np.float64)[:, :-1], axis=1) < NOOP_NORM
    kept: list[int] = []
    for step, gripper in enumerate(actions[:, -1]):
        if not still[step] or (kept and gripper != actions[kept[-1], -1]):
            kept.append(step)
    return np.asarray(kept, np.int64)


def cut_chunks(
    actions: np.ndarray, order: str, drop_noops: bool, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pair the rows of an episode with the actions that follow each.

    As OpenVLA-OFT does (``traj_transforms.py``, chunk_act_obs), the last steps start no chunk.

    :param actions: [T, 7].
    :param order: ``before``: row j was observed before action j; ``after``: after it, so that the
        actions from j + 1 on follow it, and action 0 has no observation.
    :param length: Steps of a chunk.
    :returns: Rows, int64 [N], ascending; and float32 [N, length, 7].
    """
    steps = moving_steps(actions) if drop_noops else np.arange(len(actions))
    if order == 'after':
        steps = steps[steps > 0]
    starts = np.arange(max(0, len(steps) - length + 1))
    chosen = steps[starts[:, None] + np.arange(length)]
    chunks = np.asarray(actions, np.float32)[chosen].reshape(-1, length, actions.shape[1])
    return steps[starts] - (order == 'after'), chunks
