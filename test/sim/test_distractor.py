"""One thing more on the table of LIBERO-Spatial."""

import numpy as np
import pytest

from lightvla_ros.errors import SimulationError
from lightvla_ros.sim.distractor import AREA, THINGS, draw_distractor, with_distractor
from lightvla_ros.sim.libero_env import LiberoEnv

pytestmark = pytest.mark.sim

TASK = '(define\n (:regions\n )\n (:objects\n cookies_1 - cookies\n )\n (:init\n ))'


def test_a_scene_is_built_where_the_first_places_drawn_have_no_room():
    from libero.libero.envs.env_wrapper import ControlEnv
    from robosuite.utils.errors import RandomizationError

    state = np.random.get_state()  # LIBERO draws from it while it builds
    try:
        np.random.seed(21)
        env = LiberoEnv('libero_spatial', 2, cameras=False, distractor='ketchup')
        try:
            np.random.seed(21)
            with pytest.raises(RandomizationError):  # else this test shows nothing: another seed
                ControlEnv(
                    bddl_file_name=str(env.bddl),
                    use_camera_obs=False,
                    has_offscreen_renderer=False,
                )
        finally:
            env.close()
    finally:
        np.random.set_state(state)


def test_a_layout_has_the_thing_on_the_table_and_the_task_is_the_same():
    plain = LiberoEnv('libero_spatial', 2, cameras=False)
    env = LiberoEnv('libero_spatial', 2, cameras=False, distractor='ketchup')
    try:
        assert env.instruction == plain.instruction
        assert env.task_goal == plain.task_goal
        seen = []
        for seed in (31, 32, 33):
            env.reset_layout(seed)
            thing = env.simulation.objects_dict['ketchup_1']
            pose = env.simulation.sim.data.get_joint_qpos(thing.joints[0]).copy()
            low, high = np.array(AREA[:2]) - 0.05, np.array(AREA[2:]) + 0.05
            assert (low < pose[:2]).all()
            assert (pose[:2] < high).all()
            assert pose[2] > 0.85  # m: on the table
            seen.append(pose[:2])
        assert np.ptp(seen, axis=0).max() > 0.05  # another place in each layout
        with pytest.raises(SimulationError, match='saved initial states have no distractor'):
            env.reset(0, 0)
        folder = env.bddl.parent
        assert env.bddl.name == plain.bddl.name
    finally:
        env.close()
        plain.close()
    assert not folder.exists()


def test_another_suite_is_refused():
    with pytest.raises(SimulationError, match='libero_object cannot have a distractor'):
        LiberoEnv('libero_object', 0, cameras=False, distractor='milk')


@pytest.mark.parametrize('thing', THINGS)
def test_each_thing_is_added_once(thing):
    text = with_distractor(TASK, thing)
    assert text.count(f'{thing}_1 - {thing}') == 1
    assert f'(On {thing}_1 main_table_distractor_region)' in text
    with pytest.raises(SimulationError, match='in the scene already'):
        with_distractor(text, thing)


def test_what_no_distractor_can_be_is_refused():
    with pytest.raises(SimulationError, match=r"no distractor 'plate'; choose alphabet_soup"):
        with_distractor(TASK, 'plate')
    with pytest.raises(SimulationError, match=r'without \(:init\) cannot have'):
        with_distractor(TASK.replace('(:init', '(:start'), 'milk')


def test_tasks_of_a_collection_have_different_things():
    drawn = [draw_distractor(1006000, task) for task in range(10)]
    assert drawn == [draw_distractor(1006000, task) for task in range(10)]
    assert len(set(drawn)) > 3
