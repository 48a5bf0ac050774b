"""How far and how smoothly an arm moved, and the comparison of two policies by it."""

import numpy as np
import pytest

from lightvla_ros.evaluate.efficiency import efficiency, lines
from lightvla_ros.evaluate.episodes import EpisodeRecord
from lightvla_ros.sim.motion import MotionLog


def figures_of(path):
    log = MotionLog()
    for position in path:
        log.add(position, np.zeros(7))
    return log.figures()


def test_a_steady_motion_has_a_length_and_no_jerk():
    line = np.outer(np.arange(11), [0.003, 0.004, 0.0])
    assert figures_of(line) == {'hand_path': 0.05, 'joint_travel': 0.0, 'jerk': 0.0}


def test_a_cubic_has_its_own_jerk():
    time = 0.05 * np.arange(20)
    assert figures_of(np.outer(time**3 / 6, [3.0, 0, 4.0]))['jerk'] == pytest.approx(5.0, abs=1e-3)


def test_joints_travel_both_ways_and_a_still_arm_has_figures():
    log = MotionLog()
    for angle in (0.0, 0.2, -0.1):
        log.add(np.zeros(3), np.full(7, angle))
    assert log.figures()['joint_travel'] == pytest.approx(7 * 0.5)
    assert figures_of([np.zeros(3)]) == {'hand_path': 0.0, 'joint_travel': 0.0, 'jerk': 0.0}


def records(steps, solved, paths):
    return [
        EpisodeRecord('libero_object', 0, n, 0, '', success, count, motion=motion)
        for n, (count, success, motion) in enumerate(zip(steps, solved, paths, strict=True))
    ]


def test_only_what_both_have_solved_and_measured_counts():
    first = records([100, 120, 280], [True, True, False], [{'hand_path': 1.0}, {}, {}])
    second = records([90, 120, 100], [True, True, True], [{'hand_path': 0.5}, {}, {}])
    found = efficiency(list(zip(first, second, strict=True)))
    steps, path = found['steps'], found['hand_path']
    assert (steps['pairs'], steps['first'], steps['second']) == (2, 110, 105)
    half = 1.96 * np.std([-10, 0], ddof=1) / np.sqrt(2)
    assert steps['difference'] == -5
    assert (steps['low'], steps['high']) == pytest.approx((-5 - half, -5 + half), abs=1e-3)
    assert (path['pairs'], path['difference'], path['low']) == (1, -0.5, None)
    assert 'jerk' not in found
    text = '\n'.join(lines(found))
    assert 'hand path [m]' in text
    assert '-5.000' in text
    assert lines(efficiency([])) == []
