"""Pushes on executed actions, so that demonstrations show how to come back (as DART does)."""

from __future__ import annotations

import numpy as np

CLEAN_EPISODES = 0.25  # share without any push
CLOSING = 0.2  # share of the pushes in which an open hand closes besides, as after a failed grasp


def disturbances(rng: np.random.Generator, steps: int) -> np.ndarray:
    """Draw what is added to the executed actions of an episode.

    Short pushes of 2 to 6 steps with 10 to 31 quiet ones in between. In some an open hand closes,
    over 4 to 9 steps; a closed one never opens. The clean action is what a policy learns (Laskey et
    al. 2017, arXiv 1703.09327).

    :returns: float64 [steps, 7], in OSC_POSE units; zero where there is no push.
    """
    push = np.zeros((steps, 7))
    if rng.random() < CLEAN_EPISODES:
        return push
    step = int(rng.integers(0, 12))
    while step < steps:
        closing = rng.random() < CLOSING
        length = int(rng.integers(4, 10) if closing else rng.integers(2, 7))
        strength = 1.3 * rng.uniform(0.3, 1.0)
        move = rng.uniform(-1, 1, 3) * strength
        turn = [*rng.normal(0, 0.05, 2), rng.uniform(-0.35, 0.35)]
        push[step : step + length] = [*move, *turn, 2 * closing]
        step += length + int(rng.integers(10, 32))
    return push
