"""`lightvla show` and `lightvla listen` in real LIBERO, and the expert as one that listens."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lightvla_ros.cli import main
from lightvla_ros.contract import load_manifest
from lightvla_ros.evaluate.direct import load_policy
from lightvla_ros.evaluate.episodes import Conditions, EvalOptions
from lightvla_ros.evaluate.listen import Listener
from lightvla_ros.sim.closed_loop import Environments
from lightvla_ros.sim.episode import EpisodeRunner, EpisodeSpec
from lightvla_ros.sim.expert.memoryless import MemorylessExpert
from lightvla_ros.sim.goals import other_requests, own_request
from lightvla_ros.sim.hand import NONE, Hand
from lightvla_ros.sim.patch_owners import ROLES, PatchOwners

pytestmark = pytest.mark.sim
SPEC = EpisodeSpec('libero_object', 0, 0)


@pytest.fixture(scope='module')
def environments():
    built = Environments(128, 'cheap', 200)
    yield built
    built.close()


@pytest.fixture
def env(environments):
    with environments.of(SPEC) as env:
        yield env
        env.goal = env.task_goal


def run_expert(env):
    runner, expert, hand = EpisodeRunner(env, SPEC), MemorylessExpert(env), Hand(env)
    assert hand.first == NONE
    while not runner.finished:
        runner.step(expert.act())
        hand.look()
    return runner, hand


def test_expert_that_is_asked_for_another_object_reaches_that(env):
    request = other_requests(env)[1]
    env.goal = [list(request.goal)]
    runner, hand = run_expert(env)
    assert hand.first == request.object
    assert runner.success
    assert not any('basket' in name for name in hand.names)


def test_patches_lie_on_what_is_seen_there(env, bundled_policy):
    EpisodeRunner(env, SPEC)
    manifest = load_manifest(bundled_policy)
    rows, columns = manifest.patch_grid
    owners = PatchOwners(env, manifest).look()
    assert owners.shape == (2, manifest.patches_per_camera)
    seen = {ROLES[role] for role in np.unique(owners)}
    assert seen == set(ROLES)  # among them the arm, from outside
    # the hand reaches into the wrist camera's picture
    assert (owners[1] == ROLES.index('gripper')).any()
    # a policy that sees the view the other way round has its patches the other way round, up to
    # pixels that are a quarter of a patch or not by chance
    cameras = tuple(replace(c, mirror=not c.mirror) for c in manifest.cameras)
    mirrored = PatchOwners(env, replace(manifest, cameras=cameras)).look()
    back = mirrored.reshape(2, rows, columns)[:, :, ::-1].reshape(2, -1)
    assert (back == owners).mean() > 0.95
    # another goal, another object
    env.goal = [list(other_requests(env)[0].goal)]
    others = PatchOwners(env, manifest).look()
    changed = {
        (ROLES[a], ROLES[b]) for a, b in zip(owners.flat, others.flat, strict=True) if a != b
    }
    assert changed == {('object', 'other'), ('other', 'object')}


def test_listener_asks_for_other_objects_each_time(environments, bundled_policy, tmp_path):
    conditions = Conditions(max_steps=200, camera_size=128)
    options = EvalOptions(bundled_policy, (SPEC,), conditions, tmp_path)
    policy, _ = load_policy(options)
    listener = Listener(policy, options, others=2)
    listener._environments = environments  # a scene takes 10 s to build
    with environments.of(SPEC) as env:
        own, choices = own_request(env), other_requests(env)
        limit, env.max_steps = env.max_steps, 9
    try:
        first = listener.run(SPEC).answers
        second = listener.run(replace(SPEC, init_state=1)).answers
    finally:
        env.max_steps = limit
        policy.close()
    asked = [answer.instructed for answer in (*first, *second)]
    assert asked == [choice.object for choice in choices[:4]]
    assert {answer.own for answer in first} == {own.object}
    assert [answer.instruction for answer in first] == [c.instruction for c in choices[:2]]
    assert {(answer.steps, answer.reached) for answer in first} == {(9, NONE)}
    assert env.goal == env.task_goal


def test_show_writes_pictures_and_figures(bundled_policy, tmp_path, capsys):
    arguments = ['--suite', 'libero_object', '--max-steps', '10', '--out', str(tmp_path)]
    assert main(['show', '--policy', str(bundled_policy), *arguments]) == 0
    document = json.loads((tmp_path / 'libero_object-0-0-0.json').read_text())
    assert [chunk['step'] for chunk in document['all_chunks']] == [0, 8]
    assert sum(share['image'] for share in document['by_role'].values()) == pytest.approx(1, 1e-3)
    endings = {path.name.removeprefix('libero_object-0-0-0') for path in tmp_path.iterdir()}
    assert endings == {'-frames.png', '-kept.png', '-concentration.png', '.gif', '.json'}
    assert '"pick up the alphabet soup and place it in the basket"' in capsys.readouterr().out
