"""Two things of a scene exchange places, so that a policy cannot know a place by heart."""

from __future__ import annotations

import numpy as np

from lightvla_ros.sim.libero_env import LiberoEnv
from lightvla_ros.sim.saved_state import restore_state, save_state

SLIPPED = 0.02  # m; a thing that moves farther while it settles does not stand well


def exchange_places(env: LiberoEnv, rng: np.random.Generator) -> tuple[str, str] | None:
    """Let the goal's target exchange places with another thing, and let both settle.

    In LIBERO-Object, whose target is the basket, the requested object does. Nothing on or in the
    cabinet takes part, no thing that carries another, and in LIBERO-Spatial not the requested bowl.

    :param env: After a reset and with the episode's goal.
    :returns: The two names; None where no other thing stands well at the other place.
    """
    _, requested, target = env.goal[0]
    one = requested if target.startswith('basket') else target
    free = movable(env)
    if one not in free:
        return None
    start = save_state(env.simulation)
    for other in rng.permutation([each for each in free if each not in (requested, target)]):
        places = _exchanged(env, one, other)
        env.settle()
        if all(np.abs(_pose(env, name)[:2] - place[:2]).max() < SLIPPED for name, place in places):
            return one, str(other)
        restore_state(env.simulation, start)
    return None


def movable(env: LiberoEnv) -> list[str]:
    """Return the things that nothing stands on, and that are neither on nor in the cabinet."""
    state = [each for each in env.simulation.parsed_problem['initial_state'] if len(each) == 3]
    fixed = {below for _, _, below in state}
    fixed |= {thing for _, thing, below in state if below.startswith('wooden_cabinet')}
    return sorted(set(env.simulation.objects_dict) - fixed)


def _exchanged(env: LiberoEnv, *names: str) -> list[tuple[str, np.ndarray]]:
    """Move two things to each other's place, each on its own base; return their new poses."""
    poses = [_pose(env, name) for name in names]
    bases = [env.simulation.objects_dict[name].bottom_offset[2] for name in names]
    moved = []
    for own, name in enumerate(names):
        pose, other = poses[own].copy(), 1 - own
        pose[:2] = poses[other][:2]
        pose[2] = poses[other][2] + bases[other] - bases[own]
        joint = env.simulation.objects_dict[name].joints[0]
        env.simulation.sim.data.set_joint_qpos(joint, pose)
        moved.append((name, pose))
    env.simulation.sim.forward()
    return moved


def _pose(env: LiberoEnv, name: str) -> np.ndarray:
    """Return position [m] and quaternion [7] of a thing."""
    joint = env.simulation.objects_dict[name].joints[0]
    return env.simulation.sim.data.get_joint_qpos(joint).copy()
