"""Bounds of actions and state that include all of the data; OpenVLA's leave out 2 %.

Normalised numbers are clipped to -1 and 1. With q01 and q99 as bounds, that cuts off values that
few tasks need: here the turns of the hand at a tilted bowl and its height above a cabinet. A
manifest calls the bounds q01 and q99 in both cases.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lightvla_ros.contract import ACTION_SIZE, PROPRIO_LAYOUT, Manifest
from lightvla_ros.demonstrations.statistics import (
    MIN_SPREAD,
    Figures,
    Statistics,
    normalise_actions,
    normalise_states,
)
from lightvla_ros.errors import TrainError
from lightvla_ros.vla.model import LightVLA

ROUNDING = 1e-5  # of normalised float32, so that the extremes themselves are inside


def set_bounds(document: dict[str, Any], found: Statistics) -> None:
    """Write the smallest and largest numbers of all data into a manifest's document."""
    for name, figures in (('action', found.action), ('proprio', found.proprio)):
        if document.get(name):  # a policy need not take the state
            low, high = _extremes(figures)
            document[name] |= {'q01': low.tolist(), 'q99': high.tolist()}


@torch.no_grad()
def move_bounds(
    model: LightVLA,
    document: dict[str, Any],
    found: Statistics,
    layout: tuple[str, ...] = PROPRIO_LAYOUT,
) -> None:
    """Set the bounds, and change the adjacent layers so that the model computes the same as before.

    The policy then has to learn only the values that were cut off.

    :param layout: That of the data's state.
    :raises TrainError: When the layout of the state differs from the data's, or a number has
        q01 = q99.
    """
    state = document.get('proprio')
    if state and tuple(state['layout']) != layout:
        raise TrainError(
            f'model.bounds: data needs the state layout {list(layout)}, but the policy has '
            f'{state["layout"]}; set model.bounds to kept'
        )
    before = {name: _pair(document[name]) for name in ('action', 'proprio') if document.get(name)}
    set_bounds(document, found)
    used = np.array(document['action']['mask'])
    scale, shift = _line('action', before['action'], _pair(document['action']), used)
    last = model.action_head.model.fc2
    last.weight /= scale[:, None]
    last.bias.sub_(shift).div_(scale)
    if state:
        used = np.ones(model.config.proprio_size, bool)
        scale, shift = _line('proprio', before['proprio'], _pair(state), used)
        first = model.proprio_projector.fc1
        first.bias += first.weight @ shift
        first.weight *= scale


def cut_off(
    chunks: np.ndarray,
    proprio: np.ndarray,
    manifest: Manifest,
    layout: tuple[str, ...] = PROPRIO_LAYOUT,
) -> dict[str, float]:
    """Find the share of the data that lies outside a policy's bounds and is cut off.

    :param chunks: [N, chunk, 7]; ``proprio`` [N, S], in ``layout``, both as in :class:`Frames`.
    :returns: Shares above 0, by dimension such as ``action[5]``.
    """
    actions = normalise_actions(chunks, manifest.action, clip=False).reshape(-1, ACTION_SIZE)
    numbers = {'action': np.where(manifest.action.mask, actions, 0)}
    if manifest.proprio is not None:
        numbers['proprio'] = normalise_states(proprio, manifest.proprio, layout, clip=False)
    found = {}
    for name, values in numbers.items():
        shares = (np.abs(values) > 1 + ROUNDING).mean(axis=0)
        found |= {f'{name}[{index}]': float(shares[index]) for index in np.flatnonzero(shares)}
    return found


def report_cut_off(
    chunks: np.ndarray, proprio: np.ndarray, manifest: Manifest, layout: tuple[str, ...]
) -> None:
    """Print the shares of :func:`cut_off`, if there are any."""
    shares = cut_off(chunks, proprio, manifest, layout)
    if shares:
        parts = ', '.join(f'{100 * share:.2g} % of {name}' for name, share in shares.items())
        print(
            f"cut off, because it lies outside the policy's bounds: {parts}; model.bounds: data "
            'would include everything',
            flush=True,
        )


def _extremes(figures: Figures) -> tuple[np.ndarray, np.ndarray]:
    low, high = np.array(figures.min), np.array(figures.max)
    apart = np.maximum(0, MIN_SPREAD - (high - low)) / 2
    return low - apart, high + apart


def _pair(document: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    return np.array(document['q01']), np.array(document['q99'])


def _line(
    name: str,
    before: tuple[np.ndarray, np.ndarray],
    now: tuple[np.ndarray, np.ndarray],
    used: np.ndarray,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scale and shift: a number normalised before is scale * (normalised now) + shift."""
    spread = before[1] - before[0]
    for index in np.flatnonzero(used & (spread <= 0)):
        raise TrainError(
            f'model.bounds: the policy has q01 = q99 in {name}[{index}], and cannot be rescaled; '
            'set model.bounds to kept'
        )
    spread = np.where(used, spread, 1.0)
    scale = np.where(used, (now[1] - now[0]) / spread, 1.0)
    shift = np.where(used, (now[0] + now[1] - before[0] - before[1]) / spread, 0.0)
    return torch.from_numpy(scale).float(), torch.from_numpy(shift).float()
