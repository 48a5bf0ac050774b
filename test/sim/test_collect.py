"""Demonstrations in real LIBERO: what is recorded, and that evaluation states never are."""

import h5py
import numpy as np
import pytest
from expert_runs import solve

from lightvla_ros.cli.collect import collect
from lightvla_ros.collect.collect import collect_task, demonstrate
from lightvla_ros.collect.dagger import label, visit
from lightvla_ros.collect.observe import drive
from lightvla_ros.collect.recorder import CollectPlan, disturbances
from lightvla_ros.demonstrations.reader import read_demonstrations
from lightvla_ros.errors import SimulationError
from lightvla_ros.policy.observation import observations
from lightvla_ros.policy.policy import Policy
from lightvla_ros.policy.state import state_vector
from lightvla_ros.sim.expert.memoryless import MemorylessExpert
from lightvla_ros.sim.goals import other_requests, own_request
from lightvla_ros.sim.libero_env import LiberoEnv
from lightvla_ros.sim.saved_state import save_state

pytestmark = pytest.mark.sim

SUITE, TASK = 'libero_object', 1


@pytest.fixture(scope='module')
def env():
    env = LiberoEnv(SUITE, TASK, camera_size=64)
    yield env
    env.goal = env.task_goal
    env.close()


@pytest.fixture(scope='module')
def collected(tmp_path_factory):
    plan = CollectPlan(
        tmp_path_factory.mktemp('demonstrations'), episodes=1, stride=8, camera_size=64
    )
    assert [each[0] for each in collect_task(plan, SUITE, TASK)][-1] == 1
    return plan


def only_file(plan):
    (path,) = plan.folder.rglob('*.hdf5')
    return path


def test_what_is_collected_can_be_read(collected):
    demonstrations = read_demonstrations([collected.folder])
    frames = demonstrations.load(progress=False)
    assert len(frames.images) >= 3
    assert frames.images.shape[1:] == (2, 64, 64, 3)
    assert frames.chunks.shape[1:] == (8, 7)
    with h5py.File(only_file(collected)) as file:
        demo = file['data/demo_0']
        rows, actions = demo['obs/rows'][:], demo['actions'][:]
        # without a push, the labels are the actions that the episode has at these steps
        np.testing.assert_allclose(demo['obs/chunks'][0], actions[rows[0] : rows[0] + 8], atol=1e-6)
        assert demo['actions'][-1, 6] == -1  # it let go, and the release is in the data
        assert demo['dones'][-1] == 1
    assert (frames.segmentation > 0).any()


def test_collecting_goes_on_where_it_stopped(collected):
    assert list(collect_task(collected, SUITE, TASK)) == [(1, len(_rows(collected)))]
    with h5py.File(only_file(collected), 'a') as file:
        file['data'].create_group('demo_1')  # as a killed run leaves it
        seed = int(file['data/demo_0'].attrs['seed'])
    more = CollectPlan(collected.folder, episodes=2, stride=8, camera_size=64)
    *_, last = collect_task(more, SUITE, TASK)
    assert last[0] == 1
    with h5py.File(only_file(collected)) as file:
        assert len(file['data']) == 2
        assert int(file['data/demo_1'].attrs['seed']) > seed


def _rows(plan):
    with h5py.File(only_file(plan)) as file:
        return file['data/demo_0/obs/rows'][:]


def test_a_task_that_cannot_be_is_named(tmp_path):
    errors = collect([(CollectPlan(tmp_path, 1), SUITE, 99)], 1)
    assert errors == [f'{SUITE} task 99: {SUITE} has tasks 0 to 9, not 99']


def test_no_demonstration_starts_from_a_saved_initial_state(collected, env):
    with h5py.File(only_file(collected)) as file:
        start = file['data/demo_0'].attrs['init_state']
    positions = env.simulation.sim.model.nq
    for index in range(env.init_states):
        env.reset(index, 0)
        saved = env.simulation.sim.get_state().flatten()
        assert np.abs(saved - start)[1 : 1 + positions].max() > 1e-3


def test_a_layout_that_is_a_saved_state_is_refused(env, monkeypatch):
    env.reset_layout(7)
    env._sample_layout(7)
    joints = env.simulation.robots[0]._ref_joint_pos_indexes
    places = np.array(env.simulation.sim.data.qpos)
    places[joints] += np.random.default_rng(7).normal(0, 0.02, len(joints))
    saved = env._init_states.copy()
    saved[3, 1 : 1 + len(places)] = places
    monkeypatch.setattr(env, '_init_states', saved)
    with pytest.raises(SimulationError, match='seed 7 gives a saved initial state'):
        env.reset_layout(7)


def test_another_object_of_the_scene_can_be_asked_for(env):
    own, others = own_request(env), other_requests(env)
    assert own.instruction == 'pick up the cream cheese and place it in the basket'
    assert len(others) == 5
    assert all(request.object != own.object for request in others)
    milk = next(request for request in others if request.object == 'milk_1')
    assert milk.instruction == 'pick up the milk and place it in the basket'
    env.goal = [list(milk.goal)]
    env.reset_layout(11)
    assert solve(env)
    env.goal = env.task_goal
    assert not env.solved


def test_the_expert_comes_back_from_where_it_was_pushed(env):
    env.goal = env.task_goal
    env.reset_layout(12)
    expert = MemorylessExpert(env)
    for step in range(260):
        action = expert.act()
        if expert.finished:
            break
        if 15 <= step < 30:  # away from all that it wants, for 0.75 s
            action = np.array([-1.0, 1.0, 0.5, 0, 0, 0, action[6]])
        env.step(action)
    assert env.solved


def test_a_low_hand_that_was_dragged_beside_its_opening_goes_on_down(env):
    env.goal = env.task_goal
    env.reset_layout(12)
    expert = MemorylessExpert(env)
    for _ in range(100):
        if expert.stage == 'descend' and expert._reach()[1].height < 0.06:
            break
        env.step(expert.act())
    drag = np.array([-np.sin(expert._arm.yaw), np.cos(expert._arm.yaw), 0, 0, 0, 0, -1])
    for _ in range(10):
        if expert._reach()[1].across > 0.023:
            break
        env.step(drag)
    assert 0.023 < expert._reach()[1].across < 0.03
    assert expert._reach()[1].along < 0.01
    action = expert.act()
    assert expert.stage == 'descend'  # raised again it would be dragged again, for ever
    assert action[:2] @ drag[:2] < 0  # back above what it is to grasp
    for _ in range(200):
        if env.step(expert.act()):
            break
    assert env.solved


def test_pushes_close_an_open_hand_and_never_open_a_closed_one():
    pushes = np.concatenate([disturbances(np.random.default_rng(seed), 260) for seed in range(40)])
    closing = pushes[:, 6] > 0
    assert 0.02 < closing.mean() < 0.2
    executed_open = np.clip(-1 + pushes[:, 6], -1, 1)
    executed_closed = np.clip(1 + pushes[:, 6], -1, 1)
    assert set(executed_open) == {-1, 1}
    assert set(executed_closed) == {1}
    assert pushes[closing, :3].any(axis=1).all(), 'the hand also moves, as in any push'


def test_labelling_changes_nothing(env):
    env.goal = env.task_goal
    env.reset_layout(13)
    expert = MemorylessExpert(env)
    for _ in range(30):
        env.step(expert.act())
    before, memory = save_state(env.simulation), expert.memory
    chunk = label(env, expert)
    after = save_state(env.simulation)
    np.testing.assert_array_equal(before.physics, after.physics)
    np.testing.assert_array_equal(before.fingers, after.fingers)
    assert (before.timestep, before.time, memory) == (after.timestep, after.time, expert.memory)
    # the labels are what the expert does next
    done = []
    for _ in range(8):
        done.append(expert.act())
        env.step(done[-1])
    np.testing.assert_array_equal(chunk, done)


def test_a_policy_is_rolled_and_labelled(env, bundled_policy, tmp_path):
    env.max_steps = 24
    policy = Policy.load(bundled_policy, 'onnxruntime', 1)
    plan = CollectPlan(tmp_path, 1, camera_size=64, others=0.0)
    episode = visit(env, 14, plan, policy)
    policy.close()
    assert len(episode.chunks) == len(episode.rows) == len(episode.images['wrist'])
    assert episode.policy.startswith(policy.manifest.name)
    assert len(episode.rows) >= 24 // 5
    # whatever the policy does, the expert's labels go for the object
    assert np.abs(episode.chunks[:, 0, :3]).max() > 0.3


def test_a_policy_alone_drives_and_what_it_sees_is_stored(env, bundled_policy):
    env.goal, env.max_steps = env.task_goal, 20
    with Policy.load(bundled_policy) as policy:
        seen = drive(env, policy, 16)
        first = next(iter(observations(policy.manifest, seen)))
        env.reset_layout(16)
        assert (first.images['wrist'] == env.render()['wrist']).all()
        assert (first.state == state_vector(policy.manifest.proprio, env.state())).all()
    assert len(seen['images']) == len(seen['proprio']) == len(seen['instruction']) == 3
    assert not seen['success']


def test_failed_episodes_are_dropped(env, tmp_path, monkeypatch):
    env.goal = env.task_goal
    monkeypatch.setattr('lightvla_ros.collect.collect.SLOWEST', 20)  # too short for any expert
    assert demonstrate(env, 15, CollectPlan(tmp_path, 1, camera_size=64, stride=8)) is None
