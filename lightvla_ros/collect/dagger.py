"""DAgger: a policy drives, and the expert labels each visited state with its own actions.

Ross et al. 2011, arXiv 1011.0686. The labels of a frame are the expert's next 8 actions from there,
which are simulated before the state is restored.
"""

from __future__ import annotations

import numpy as np

from lightvla_ros.collect.recorder import CollectPlan, Recorder, choose_request, start
from lightvla_ros.contract.libero import CHUNK_LENGTH
from lightvla_ros.demonstrations.writer import Episode
from lightvla_ros.policy.policy import Policy
from lightvla_ros.sim.closed_loop import executed_actions, observe
from lightvla_ros.sim.expert.memoryless import MOST_PLANS, MemorylessExpert
from lightvla_ros.sim.libero_env import LiberoEnv
from lightvla_ros.sim.saved_state import restore_state, save_state

SHARE_OF_EXPERT = 0.12  # of the chunks, so that the late stages are visited, too
SHORTEST = 5  # least number of executed steps of a chunk


def visit(env: LiberoEnv, seed: int, plan: CollectPlan, policy: Policy) -> Episode:
    """Let the policy drive an episode, and label every state at which it predicts a chunk.

    Failed episodes are kept, because they are as useful as successful ones.
    """
    rng = np.random.default_rng([seed, env.task])  # independent draws for each task
    request = choose_request(env, rng, plan.others)
    start(env, seed, plan, rng)
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
            expert.act()  # so that the expert replans from the executed actions
            solved = env.step(chunk[index])
            steps += 1
            if solved or steps >= env.max_steps:
                break
    name = f'{policy.manifest.name} {policy.manifest.fingerprint[:12]}'
    return recorder.episode(seed, request, np.array(chunks), name, solved)


def label(env: LiberoEnv, expert: MemorylessExpert) -> np.ndarray:
    """Return the expert's next 8 actions [8, 7] from this state, and restore the state."""
    moment, memory = save_state(env.simulation), expert.memory
    actions = []
    for _ in range(CHUNK_LENGTH):
        actions.append(expert.act())
        env.step(actions[-1])
    restore_state(env.simulation, moment)
    expert.memory = memory
    return np.array(actions)
