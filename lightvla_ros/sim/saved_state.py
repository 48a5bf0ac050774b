"""Saves and restores the state of an episode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

_WHOLE = mujoco.mjtState.mjSTATE_INTEGRATION


@dataclass(frozen=True)
class SavedState:
    """Everything that decides how an episode continues."""

    physics: np.ndarray
    fingers: np.ndarray
    timestep: int
    time: float


def save_state(simulation: Any) -> SavedState:
    """Save the state, for :func:`restore_state` in the same episode.

    :param simulation: Robosuite's environment.
    """
    model, data = simulation.sim.model._model, simulation.sim.data._data
    # after a step, poses are still those before its last integration; after restoring, not
    mujoco.mj_forward(model, data)
    physics = np.zeros(mujoco.mj_stateSize(model, _WHOLE))
    mujoco.mj_getState(model, data, physics, _WHOLE)
    fingers = np.array(simulation.robots[0].gripper.current_action)
    return SavedState(physics, fingers, simulation.timestep, simulation.cur_time)


def restore_state(simulation: Any, saved: SavedState) -> None:
    """Restore a saved state, as if the steps since then had not happened."""
    model, data = simulation.sim.model._model, simulation.sim.data._data
    mujoco.mj_setState(model, data, saved.physics, _WHOLE)
    mujoco.mj_forward(model, data)
    simulation.robots[0].gripper.current_action = saved.fingers.copy()
    simulation.timestep, simulation.cur_time = saved.timestep, saved.time
    simulation.done = False
