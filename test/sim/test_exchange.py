"""Two things of a scene exchange places."""

import numpy as np
import pytest

from lightvla_ros.collect.recorder import CollectPlan, start
from lightvla_ros.sim.exchange import CABINET, exchange_places, held, movable
from lightvla_ros.sim.goals import other_requests
from lightvla_ros.sim.libero_env import LiberoEnv

pytestmark = pytest.mark.sim


@pytest.fixture(scope='module')
def on_cookies():
    """A second bowl's task: the requested one stands on the cookie box."""
    env = LiberoEnv('libero_spatial', 3, cameras=False)
    yield env
    env.close()


def places(env):
    simulation = env.simulation
    return {
        name: simulation.sim.data.get_joint_qpos(thing.joints[0]).copy()
        for name, thing in simulation.objects_dict.items()
    }


def base(env, name, places):
    return places[name][2] + env.simulation.objects_dict[name].bottom_offset[2]


def exchange_with(env, wanted, seeds=40):
    """Draw until the plate has exchanged places with something; return the places before."""
    for seed in range(seeds):
        env.reset_layout(31 + seed)
        before = places(env)
        exchanged = exchange_places(env, np.random.default_rng(seed))
        if exchanged == ('plate_1', wanted):
            return before
    raise AssertionError(f'the plate was never exchanged with {wanted}')


def test_the_target_and_another_thing_exchange_places_and_nothing_else_moves(on_cookies):
    env = on_cookies
    exchanged = ('plate_1', 'glazed_rim_porcelain_ramekin_1')
    before = exchange_with(env, exchanged[1])
    after = places(env)
    # what carries another bowl, or stands in or on the cabinet, stays
    for name, other in (exchanged, exchanged[::-1]):
        assert np.abs(after[name][:2] - before[other][:2]).max() < 0.02
        assert abs(base(env, name, after) - base(env, other, before)) < 0.01
    for name in set(before) - set(exchanged):
        assert np.abs(after[name][:3] - before[name][:3]).max() < 2e-3


def test_the_cabinet_takes_along_what_is_on_it_and_stands_at_its_place_after_a_reset(on_cookies):
    env = on_cookies
    bodies, body = env.simulation.sim.model._model.body_pos, env.simulation.obj_body_id[CABINET]
    before = exchange_with(env, CABINET)
    moved, after = bodies[body].copy(), places(env)
    np.testing.assert_allclose(moved[:2], before['plate_1'][:2], atol=1e-9)
    on_it = 'akita_black_bowl_2'
    assert held(env) == {on_it}
    shift = after[on_it][:3] - before[on_it][:3]
    np.testing.assert_allclose(after['plate_1'][:2], moved[:2] - shift[:2], atol=0.02)
    assert abs(shift[2]) < 5e-3
    for name in set(before) - {'plate_1', on_it}:
        assert np.abs(after[name][:2] - before[name][:2]).max() < 0.02
    env.reset_layout(31)
    assert bodies[body][1] < -0.2  # on its side of the table


def test_the_plate_stands_on_the_box_that_carried_a_bowl():
    env = LiberoEnv('libero_spatial', 5, cameras=False)
    try:
        before = exchange_with(env, 'akita_black_bowl_2')
        after = places(env)
        assert np.abs(after['plate_1'][:2] - before['akita_black_bowl_2'][:2]).max() < 0.02
        # it rests on the box, which is where it was
        assert 0.01 < after['plate_1'][2] - before['plate_1'][2] < 0.04
        assert np.abs(after['cookies_1'][:3] - before['cookies_1'][:3]).max() < 2e-3
    finally:
        env.close()


def test_what_carries_a_thing_and_what_the_cabinet_holds_stays(on_cookies):
    env = on_cookies
    state = env.simulation.parsed_problem['initial_state']
    assert ['on', 'akita_black_bowl_1', 'cookies_1'] in [list(each) for each in state]
    assert 'cookies_1' not in movable(env)
    assert 'akita_black_bowl_2' not in movable(env)  # on the cabinet


def test_of_another_request_that_bowl_stays(on_cookies):
    env = on_cookies
    env.reset_layout(31)
    own = env.goal
    try:
        env.goal = [list(other_requests(env)[0].goal)]
        requested = env.goal[0][1]
        before = places(env)[requested]
        assert requested not in exchange_places(env, np.random.default_rng(1))
        assert np.abs(places(env)[requested][:3] - before[:3]).max() < 2e-3
    finally:
        env.goal = own


def test_where_nothing_stands_at_the_other_place_all_is_as_it_was(on_cookies, monkeypatch):
    env = on_cookies
    env.reset_layout(31)
    monkeypatch.setattr('lightvla_ros.sim.exchange.SLIPPED', 0.0)
    before = env.simulation.sim.data.qpos.copy()
    stood = env.simulation.sim.model._model.body_pos.copy()
    assert exchange_places(env, np.random.default_rng(0)) is None
    np.testing.assert_array_equal(env.simulation.sim.data.qpos, before)
    np.testing.assert_array_equal(env.simulation.sim.model._model.body_pos, stood)


def test_in_libero_object_the_requested_object_is_exchanged():
    env = LiberoEnv('libero_object', 0, cameras=False)
    try:
        env.reset_layout(31)
        before = places(env)
        one, other = exchange_places(env, np.random.default_rng(0))
        assert (one, other != 'basket_1') == ('alphabet_soup_1', True)
        assert np.abs(places(env)[one][:2] - before[other][:2]).max() < 0.02
    finally:
        env.close()


def test_a_share_of_the_episodes_begins_with_things_exchanged(on_cookies, monkeypatch, tmp_path):
    drawn = []
    env = on_cookies
    monkeypatch.setattr(env, 'reset_layout', lambda *_: None)
    monkeypatch.setattr(
        'lightvla_ros.collect.recorder.exchange_places', lambda _env, rng: drawn.append(rng)
    )
    left = []
    for share, least, most in ((0.0, 0, 0), (0.5, 30, 70), (1.0, 100, 100)):
        drawn.clear()
        for seed in range(100):
            rng = np.random.default_rng(seed)
            start(env, seed, CollectPlan(tmp_path, 1, exchanged=share), rng)
            left.append((share, seed, rng.random()))
        assert least <= len(drawn) <= most
    # without the option, seeds draw what they drew before it existed: two numbers
    for share, seed, number in left:
        if share == 0.0:
            rng = np.random.default_rng(seed)
            first = rng.random()
            if first < 0.75:
                rng.integers(1, 2**31)
            rng.random()
            assert number == rng.random()
