"""DAgger: a policy drives, and the expert says at each visited state what it would have done.

Ross et al. 2011, arXiv 1011.0686. The labels of a frame are the expert's next 8 actions from there,
found by trying them and going back in time.
"""

from __future__ import annotations

import numpy as np

from lightvla_ros.collect.recorder import CollectPlan, Recorder, choose_request
from lightvla_ros.contract.libero import CHUNK_LENGTH
from lightvla_ros.demonstrations.writer import Episode
from lightvla_ros.policy.policy import Policy
from lightvla_ros.sim.closed_loop import executed_actions, observe
from lightvla_ros.sim.expert.memoryless import MOST_PLANS, MemorylessExpert
from lightvla_ros.sim.libero_env import LiberoEnv
from lightvla_ros.sim.saved_state import restore_state, save_state

SHARE_OF_EXPERT = 0.12  # of the chunks: so that the late stages are visited, too
SHORTEST = 5  # steps of a chunk that are executed, at least


def visit(env: LiberoEnv, seed: int, plan: CollectPlan, policy: Policy) -> Episode:
    """Let the policy drive an episode, and label every state at which it looked.

    A failed episode is of as much use as one that succeeded.
    """
    rng = np.random.default_rng([seed, env.task])  # no task's expert helps when another's does
    request = choose_request(env, rng, plan.others)
    env.reset_layout(seed)
    instruction = policy.check_instruction(request.instruction)
    recorder, expert = Recorder(env, plan.camera_size), MemorylessExpert(env)
    chunks: list[np.ndarray] = []
    steps = 0
    solved = False
    while steps < env.max_steps and not solved and expert.memory.plans < MOST_PLANS:
        right = label(env, expert)
        chunks.append(right)
        observation = observe(env, policy.manifest, instruction)
        if rng.random() < SHARE_OF_EXPERT:
            chunk = right
        else:
            chunk = executed_actions(policy.infer(observation).chunk)
        for index in range(int(rng.integers(SHORTEST, CHUNK_LENGTH + 1))):
            recorder.step(chunk[index], None if index else observation.images)
            expert.act()  # so that it plans anew on what really happens
            solved = env.step(chunk[index])
            steps += 1
            if solved or steps >= env.max_steps:
                break
    name = f'{policy.manifest.name} {policy.manifest.fingerprint[:12]}'
    return recorder.episode(seed, request, np.array(chunks), name, solved)


def label(env: LiberoEnv, expert: MemorylessExpert) -> np.ndarray:
    """Return the expert's next 8 actions [8, 7] from here; nothing has happened afterwards."""
    moment, memory = save_state(env.simulation), expert.memory
    actions = []
    for _ in range(CHUNK_LENGTH):
        actions.append(expert.act())
        env.step(actions[-1])
    restore_state(env.simulation, moment)
    expert.memory = memory
    return np.array(actions)
