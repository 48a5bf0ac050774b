"""With ``roll_state`` the policy gets the pose of the time when its chunk will start."""

import json
import shutil
from statistics import median

import numpy as np
import pytest
from lightvla_ros.msg import VlaStatus
from rig import rig
from std_srvs.srv import SetBool

from lightvla_ros.contract import MANIFEST_NAME, amend_manifest, load_manifest
from lightvla_ros.nodes.conversions import chunk_from_message, stamp_ns
from lightvla_ros.policy.actions import axis_angle_from_quaternion
from lightvla_ros.policy.poses import Pose, moved
from lightvla_ros.policy.state import RobotState, normalise_proprio, state_vector

PERIOD = 50_000_000
ROLLED = {'roll_state': True, 'replan_steps': 2, 'min_instruction_interval': 0.0}
STATE = RobotState(np.zeros(3), np.array([1.0, 0, 0, 0]), np.array([0.04, -0.04]))
STILL = np.zeros(3)


def measured(folder, translation=STILL, turn=STILL):
    """The proprio of the state that the robot publishes, moved by a translation and a turn."""
    pose = moved(Pose(STATE.position, STATE.quaternion), translation, turn)
    spec = load_manifest(folder).proprio
    state = RobotState(pose.position, pose.quaternion, STATE.fingers)
    return normalise_proprio(state_vector(spec, state), spec)


def proprios(r):
    return [proprio for _, proprio in r.engine.seen]


@pytest.mark.parametrize(('execution', 'reached'), [('spring', 0.26), ('displacement', 1.0)])
def test_the_state_is_that_of_the_time_when_the_chunk_starts(
    bundled_policy, tmp_path, execution, reached
):
    folder = shutil.copytree(bundled_policy, tmp_path / execution)
    action = json.loads((folder / MANIFEST_NAME).read_text())['action']
    amend_manifest(folder, action=action | {'execution': execution})
    with rig(folder, **ROLLED, max_state_skew=0.001) as r:  # the state of the same instant
        r.engine.delay = 0.08
        r.run()
        r.until(lambda: len(r.robot.moves()) >= 8, 'eight chunks')
        chunks, given = r.robot.moves()[:8], proprios(r)[:8]
        assert r.node.statistics.counts['discarded'] == 0, 'each proprio is that of its chunk'
    assert np.array_equal(given[0], measured(folder)), 'nothing was committed before'
    delays = [stamp_ns(c.header.stamp) - stamp_ns(c.stats.observation_stamp) for c in chunks]
    step = chunk_from_message(chunks[0])
    turn = axis_angle_from_quaternion(step.rotations[0])
    for index in range(1, 8):
        seen = stamp_ns(chunks[index].stats.observation_stamp)
        starts = seen + median(delays[:index])
        # all steps are equal, so that it does not matter which chunk's they are
        moving = max(starts - max(seen, stamp_ns(chunks[0].header.stamp)), 0)
        assert moving > 50_000_000
        part = reached * moving / PERIOD
        expected = measured(folder, part * step.translations[0], part * turn)
        assert given[index] == pytest.approx(expected, abs=1e-5)
        assert np.abs(given[index] - given[0]).max() > 0.01


def test_off_the_state_is_the_measured_one(bundled_policy):
    with rig(bundled_policy, replan_steps=1) as r:
        r.engine.delay = 0.08
        r.run()
        r.until(lambda: len(r.robot.moves()) >= 4, 'four chunks')
        still = measured(bundled_policy)
        assert all(np.array_equal(proprio, still) for proprio in proprios(r))


def test_steps_that_a_hold_withdrew_move_nothing(bundled_policy):
    still = measured(bundled_policy)

    def moving(r):
        r.until(lambda: not np.array_equal(proprios(r)[-1], still), 'a rolled state')

    with rig(bundled_policy, **ROLLED) as r:
        r.engine.delay = 0.08
        r.run()
        moving(r)
        r.robot.say('pick up the soup')
        r.until(lambda: new_words(r), 'the new instruction')
        assert np.array_equal(new_words(r)[0], still)
        moving(r)

        pause = r.robot.create_client(SetBool, 'lightvla/pause')
        r.until(pause.service_is_ready, 'pause')
        pause.call_async(SetBool.Request(data=True))
        r.until_state(VlaStatus.HOLDING, 'paused')
        r.settle()
        calls = len(r.engine.seen)
        pause.call_async(SetBool.Request(data=False))
        r.until(lambda: len(r.engine.seen) > calls, 'an inference')
        assert np.array_equal(proprios(r)[calls], still)
        moving(r)

        r.node.trigger_deactivate()
        calls = len(r.engine.seen)
        r.node.trigger_activate()
        r.robot.say('pick up the milk')
        r.until(lambda: len(r.engine.seen) > calls, 'an inference')
        assert np.array_equal(proprios(r)[calls], still)
        moving(r)


def new_words(r):
    """What the engine was given with another instruction than the first."""
    first = r.engine.seen[0][0].ids
    return [p for prompt, p in r.engine.seen if not np.array_equal(prompt.ids, first)]


def test_fault_the_policy_takes_no_pose(bundled_policy, tmp_path):
    folder = shutil.copytree(bundled_policy, tmp_path / 'blind')
    amend_manifest(folder, proprio=None)
    with rig(folder, autostart=False, roll_state=True) as r:
        r.matched_user()
        r.node.autostart()
        r.until_state(VlaStatus.UNCONFIGURED, 'configure_failed')
        said = 'takes no pose of the end effector'
        r.until(lambda: any(said in line for line in r.robot.logs), 'the log')
