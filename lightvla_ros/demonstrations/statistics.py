"""Figures of actions and states in OpenVLA's form, and the normalisation by them for training."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lightvla_ros.contract import ACTION_SIZE, PROPRIO_LAYOUT, PROPRIO_SIZES, Action, Proprio
from lightvla_ros.demonstrations.frames import Frames

ACTION_MASK = (True,) * 6 + (False,)  # OpenVLA's oxe/materialize.py: the gripper stays as it is
# Between q01 and q99. A number that varies less is constant; its quantiles are moved apart to this
# distance, or else the division would blow rounding noise up to the whole range. Runtime and
# training both take q01 and q99 from the manifest, so they agree, and a constant becomes 0.
MIN_SPREAD = 1e-3


@dataclass(frozen=True)
class Figures:
    """Figures per dimension; ``min`` and ``max`` are exact, q01 and q99 are at least 1e-3 apart.

    :param mask: True where a number is normalised; None stands for all.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    max: tuple[float, ...]
    min: tuple[float, ...]
    q01: tuple[float, ...]
    q99: tuple[float, ...]
    mask: tuple[bool, ...] | None = None


@dataclass(frozen=True)
class Statistics:
    """Figures of a set of frames.

    :param num_transitions: Frames.
    :param num_trajectories: Episodes.
    """

    action: Figures
    proprio: Figures
    num_transitions: int
    num_trajectories: int

    def as_openvla(self) -> dict[str, Any]:
        """Return a data set's entry in OpenVLA's ``dataset_statistics.json``."""
        found = {
            'action': _lists(self.action),
            'proprio': _lists(self.proprio),
            'num_transitions': self.num_transitions,
            'num_trajectories': self.num_trajectories,
        }
        del found['proprio']['mask']
        return found


def statistics_of(
    frames: Frames, gripper_open: float = 1.0, gripper_closed: float = 0.0
) -> Statistics:
    """Compute the figures of frames.

    Actions are counted at all steps of all chunks, as the head is trained on them. (OpenVLA counts
    each step of a trajectory once; its chunks are not cut yet.)

    :param gripper_open: The policy's number for an open gripper; ``gripper_closed`` likewise.
    """
    actions = with_policy_gripper(frames.chunks, gripper_open, gripper_closed)
    return Statistics(
        action=_figures(actions.reshape(-1, ACTION_SIZE), ACTION_MASK),
        proprio=_figures(frames.proprio.astype(np.float64), None),
        num_transitions=len(frames),
        num_trajectories=len(np.unique(frames.episode)),
    )


def with_policy_gripper(
    chunks: np.ndarray, gripper_open: float, gripper_closed: float
) -> np.ndarray:
    """Turn the frames' gripper (-1 open, +1 closed) into the policy's; the rest stays.

    OpenVLA's ``oxe/transforms.py`` (libero_dataset_transform) clips to [0, 1] and takes 1 - g: 1 is
    open, and so is everything up to 0 in LIBERO's numbers.

    :param chunks: [..., 7].
    :returns: float64 [..., 7].
    """
    actions = np.array(chunks, np.float64)
    opening = 1 - np.clip(actions[..., 6], 0, 1)
    actions[..., 6] = gripper_closed + opening * (gripper_open - gripper_closed)
    return actions


def normalise_actions(chunks: np.ndarray, spec: Action, clip: bool = True) -> np.ndarray:
    """Turn the frames' actions into what the head is trained on; undone by ``actions.unnormalise``.

    OpenVLA-OFT ``rlds/utils/data_utils.py`` (BOUNDS_Q99): clip(2 (a - q01) / (q99 - q01 + 1e-8) -
    1, -1, 1) where the mask is set. The gripper is turned into the policy's numbers first.

    :param chunks: [..., 7], in the contract's units, gripper -1 open, +1 closed.
    :param clip: False leaves numbers outside the bounds unchanged.
    :returns: float32 [..., 7].
    """
    actions = with_policy_gripper(chunks, spec.gripper_open, spec.gripper_closed)
    scaled = _scaled(actions, spec.q01, spec.q99, clip)
    return np.where(spec.mask, scaled, actions).astype(np.float32)


def normalise_states(
    proprio: np.ndarray,
    spec: Proprio,
    layout: tuple[str, ...] = PROPRIO_LAYOUT,
    clip: bool = True,
) -> np.ndarray:
    """Normalise many states at once, exactly as ``proprio.normalise_proprio`` does one.

    :param proprio: [N, S], as in :class:`Frames`.
    :param layout: The layout of ``proprio``, which holds that of the policy.
    :param clip: As in :func:`normalise_actions`.
    :returns: float32 [N, S], in the layout of the policy.
    :raises ValueError: When the states have another width than their layout.
    """
    proprio = np.asarray(proprio, np.float64)
    ends = np.cumsum([PROPRIO_SIZES[part] for part in layout])
    if proprio.ndim != 2 or proprio.shape[1] != ends[-1]:
        raise ValueError(f'states are [N, {ends[-1]}], not {proprio.shape}')
    parts = dict(zip(layout, np.split(proprio, ends[:-1], axis=1), strict=True))
    states = np.concatenate([parts[part] for part in spec.layout], axis=1)
    return _scaled(states, spec.q01, spec.q99, clip).astype(np.float32)


def _scaled(
    values: np.ndarray, q01: tuple[float, ...], q99: tuple[float, ...], clip: bool
) -> np.ndarray:
    low, high = np.asarray(q01), np.asarray(q99)
    scaled = 2 * (values - low) / (high - low + 1e-8) - 1
    return np.clip(scaled, -1, 1) if clip else scaled


def _figures(values: np.ndarray, mask: tuple[bool, ...] | None) -> Figures:
    """Compute the figures of values [M, D]."""
    q01, q99 = np.quantile(values, (0.01, 0.99), axis=0)
    apart = np.maximum(0, MIN_SPREAD - (q99 - q01)) / 2
    found = {
        'mean': values.mean(axis=0),
        'std': values.std(axis=0),
        'max': values.max(axis=0),
        'min': values.min(axis=0),
        'q01': q01 - apart,
        'q99': q99 + apart,
    }
    return Figures(**{name: tuple(each.tolist()) for name, each in found.items()}, mask=mask)


def _lists(figures: Figures) -> dict[str, Any]:
    return {name: value and list(value) for name, value in asdict(figures).items()}
