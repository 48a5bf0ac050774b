"""Two things of a scene exchange places, so that a policy cannot know a place by heart."""

from __future__ import annotations

import numpy as np

from lightvla_ros.sim.libero_env import LiberoEnv
from lightvla_ros.sim.saved_state import restore_state, save_state

SLIPPED = 0.02  # m; a thing that moves farther while all settle does not stand well
# m; onto a thing that carried another one is let down from here, since LIBERO's bases are not exact
# and a broad one would begin inside of it
DROP = 0.01
CABINET = 'wooden_cabinet_1'


def exchange_places(env: LiberoEnv, rng: np.random.Generator) -> tuple[str, str] | None:
    """Let the goal's target exchange places with another thing, and let all settle.

    In LIBERO-Object, whose target is the basket, the requested object does. The other thing can be
    the cabinet, with what is on and in it. Otherwise nothing on or in the cabinet takes part, no
    thing that carries another, and in LIBERO-Spatial not the requested bowl.

    :param env: After a reset and with the episode's goal.
    :returns: The two names; None where no other thing stands well at the other place.
    """
    _, requested, target = env.goal[0]
    one = requested if target.startswith('basket') else target
    free = movable(env)
    if one not in free:
        return None
    others = [each for each in free if each not in (requested, target)]
    if CABINET in env.simulation.fixtures_dict:
        others.append(CABINET)
    start, fixed = save_state(env.simulation), _fixtures(env).copy()
    for other in map(str, rng.permutation(others)):
        _exchange(env, one, other)
        expected = _poses(env)
        env.settle()
        moved = [np.abs(pose - expected[name])[:2].max() for name, pose in _poses(env).items()]
        if max(moved) < SLIPPED:
            return one, other
        _fixtures(env)[:] = fixed
        restore_state(env.simulation, start)
    return None


def movable(env: LiberoEnv) -> list[str]:
    """Return the things that nothing stands on, and that are neither on nor in the cabinet."""
    fixed = {below for _, _, below in _initial(env)} | held(env)
    return sorted(set(env.simulation.objects_dict) - fixed)


def held(env: LiberoEnv) -> set[str]:
    """Return the things on and in the cabinet."""
    return {thing for _, thing, below in _initial(env) if below.startswith('wooden_cabinet')}


def _initial(env: LiberoEnv) -> list[list[str]]:
    """Return what stands where at first: predicate, thing and what it stands on."""
    return [each for each in env.simulation.parsed_problem['initial_state'] if len(each) == 3]


def _stands_on_a_thing(env: LiberoEnv, name: str) -> bool:
    things = env.simulation.objects_dict
    return any(thing == name and below in things for _, thing, below in _initial(env))


def _exchange(env: LiberoEnv, one: str, other: str) -> None:
    """Move two things to each other's place, each on its own base."""
    poses = _poses(env)
    if other == CABINET:  # it stands on the table, as the target does
        shift = _fixtures(env)[_body(env)] - poses[one][:3]
        shift[2] = 0
        _fixtures(env)[_body(env)] -= shift
        for name in held(env):
            _move(env, name, poses[name], -shift)
    else:
        things = env.simulation.objects_dict
        shift = poses[other][:3] - poses[one][:3]
        shift[2] += things[other].bottom_offset[2] - things[one].bottom_offset[2]
        _move(env, other, poses[other], -shift)
        if _stands_on_a_thing(env, other):
            shift[2] += DROP
    _move(env, one, poses[one], shift)
    env.simulation.sim.forward()


def _move(env: LiberoEnv, name: str, pose: np.ndarray, shift: np.ndarray) -> None:
    moved = pose.copy()
    moved[:3] += shift
    joint = env.simulation.objects_dict[name].joints[0]
    env.simulation.sim.data.set_joint_qpos(joint, moved)


def _poses(env: LiberoEnv) -> dict[str, np.ndarray]:
    """Return position [m] and quaternion [7] of each thing."""
    data = env.simulation.sim.data
    return {
        name: data.get_joint_qpos(thing.joints[0]).copy()
        for name, thing in env.simulation.objects_dict.items()
    }


def _fixtures(env: LiberoEnv) -> np.ndarray:
    """Return the positions of all bodies in their parents [bodies, 3], the model's own array."""
    return env.simulation.sim.model._model.body_pos


def _body(env: LiberoEnv) -> int:
    return env.simulation.obj_body_id[CABINET]
