"""How the simulated robot treats chunks, with a robot that only writes down what it is told."""

import numpy as np
import pytest
from lightvla_ros.msg import ActionChunk, InferenceStats

from lightvla_ros.contract.libero import PERIOD
from lightvla_ros.nodes.bridge_modes import (
    EpisodeAbortedError,
    EpisodeCounts,
    run_lockstep,
    run_wall_clock,
)
from lightvla_ros.nodes.conversions import (
    ChunkHeader,
    chunk_to_message,
    duration_message,
    time_message,
)
from lightvla_ros.policy.actions import chunk_from_osc, hold

START = 10**10
OPEN = np.array([0, 0, 0, 0, 0, 0, -1.0])


def chunk(stamp, steps=8, value=0.5, observation=None, valid=PERIOD, empty=''):
    actions = np.tile([value, 0, 0, 0, 0, 0, 1.0], (steps, 1))
    return chunk_to_message(
        hold(0.05) if empty else chunk_from_osc(actions, 0.05),
        ChunkHeader(
            stamp=stamp,
            frame_id='world',
            child_frame_id='hand',
            reference=ActionChunk.REFERENCE_MEASURED_POSE,
            valid_until=stamp + valid,
            sequence=0,
            session_id='s',
            instruction='i',
            reason=empty,
            stats=InferenceStats(
                observation_stamp=time_message(stamp if observation is None else observation)
            ),
        ),
    )


class Robot:
    """Answers with what ``answer(robot)`` returns; ends after ``limit`` steps."""

    def __init__(self, answer, limit):
        self.now = START
        self.base_frame = 'world'
        self.counts = EpisodeCounts()
        self.answer = answer
        self.limit = limit
        self.observed = []
        self.actions = []
        self.complaints = []

    def observe(self):
        self.observed.append(self.now)

    def step(self, action):
        self.actions.append(action)
        self.now += PERIOD
        return len(self.actions) >= self.limit

    def hold_action(self):
        return OPEN

    def wait_for_chunks(self, timeout):
        return self.answer(self)

    def complain(self, text):
        self.complaints.append(text)


def _lockstep(robot, *arguments):
    run_lockstep(robot, robot.counts, *arguments)
    return robot.counts


def test_lockstep_executes_all_steps_of_the_chunk_it_waited_for():
    robot = Robot(lambda r: [chunk(r.now)], limit=20)
    counts = _lockstep(robot, 8, 1.0, 5.0)
    assert robot.observed == [START + k * 8 * PERIOD for k in range(3)]
    assert len(robot.actions) == 20
    np.testing.assert_allclose(robot.actions, np.tile([0.5, 0, 0, 0, 0, 0, 1], (20, 1)))
    assert counts.chunks == 3


def test_lockstep_ignores_a_chunk_that_names_another_observation():
    other = iter([[chunk(START, observation=START - PERIOD)], [chunk(START)]])
    robot = Robot(lambda r: next(other), limit=8)
    counts = _lockstep(robot, 8, 1.0, 5.0)
    assert counts.ignored == 1
    assert len(robot.actions) == 8


def test_lockstep_stands_still_during_a_hold_and_sends_again():
    seen = []

    def answer(robot):
        seen.append(robot.now)
        return [chunk(robot.now, empty='no_instruction')] if len(seen) < 4 else [chunk(robot.now)]

    robot = Robot(answer, limit=8)
    counts = _lockstep(robot, 8, 0.0, 5.0)
    assert set(seen) == {START}, 'time must not advance'
    assert counts.holds == 3
    assert counts.resent == 3
    assert robot.observed == [START] * 4
    assert 'no_instruction' in robot.complaints[0]


def test_lockstep_ends_with_an_error_when_no_chunk_comes():
    robot = Robot(lambda r: [], limit=8)
    with pytest.raises(EpisodeAbortedError, match='no chunk for the observation within 0.05 s'):
        _lockstep(robot, 8, 0.01, 0.05)
    assert robot.actions == []


def test_lockstep_refuses_a_chunk_that_must_not_be_executed():
    bad = chunk(START)
    bad.steps[3].rotation.w = 5.0
    answers = iter([[bad], [chunk(START)]])
    robot = Robot(lambda r: next(answers), limit=8)
    counts = _lockstep(robot, 8, 1.0, 5.0)
    assert counts.refused == 1
    assert 'unit quaternion' in robot.complaints[0]


def test_lockstep_shows_frames_between_without_asking_for_chunks():
    asked = []

    def answer(robot):
        asked.append(robot.now)
        return [chunk(robot.now)]

    robot = Robot(answer, limit=16)
    _lockstep(robot, 2, 1.0, 5.0)
    assert len(asked) == 2
    assert robot.observed == [START + k * 2 * PERIOD for k in range(8)]


def _wall_clock(answers, limit):
    robot = Robot(lambda r: answers.get((r.now - START) // PERIOD, []), limit)
    run_wall_clock(robot, robot.counts, 8, 1000.0)
    return robot, robot.counts


def test_wall_clock_holds_without_a_chunk():
    robot, counts = _wall_clock({}, 5)
    np.testing.assert_array_equal(robot.actions, np.tile(OPEN, (5, 1)))
    assert (counts.holds, counts.chunks) == (5, 0)


def test_wall_clock_drops_the_steps_that_are_past_and_holds_after_the_last():
    late = chunk(START, steps=4, valid=10 * PERIOD)
    robot, counts = _wall_clock({2: [late]}, 6)
    moved = [bool(action[0]) for action in robot.actions]
    assert moved == [False, False, True, True, False, False]
    assert (counts.chunks, counts.holds) == (1, 4)


def test_wall_clock_never_starts_a_chunk_after_valid_until():
    robot, counts = _wall_clock({3: [chunk(START, valid=2 * PERIOD)]}, 6)
    assert not any(action[0] for action in robot.actions)
    assert counts.ignored == 1


def test_wall_clock_newer_chunk_replaces_the_older_and_an_empty_one_stops():
    answers = {
        0: [chunk(START, value=0.5)],
        2: [chunk(START + 2 * PERIOD, value=0.25)],
        4: [chunk(START + 4 * PERIOD, empty='camera_stale:wrist')],
    }
    robot, counts = _wall_clock(answers, 6)
    np.testing.assert_allclose([a[0] for a in robot.actions], [0.5, 0.5, 0.25, 0.25, 0, 0])
    assert counts.chunks == 2


def test_wall_clock_goes_on_with_the_older_chunk_until_the_newer_starts():
    older = chunk(START, value=0.5, valid=20 * PERIOD)
    for tick in (0, 1):  # also when both come between two ticks
        later = chunk(START + 3 * PERIOD, value=0.25)
        answers = {0: [older, later]} if tick == 0 else {0: [older], 1: [later]}
        robot, counts = _wall_clock(answers, 6)
        np.testing.assert_allclose([a[0] for a in robot.actions], [0.5] * 3 + [0.25] * 3)
        assert (counts.chunks, counts.ignored) == (2, 0)


def test_wall_clock_newer_chunk_that_starts_at_once_replaces_one_that_waits():
    answers = {0: [chunk(START + 2 * PERIOD, value=0.1)], 1: [chunk(START + PERIOD, value=0.5)]}
    robot, counts = _wall_clock(answers, 5)
    np.testing.assert_allclose([a[0] for a in robot.actions], [0] + [0.5] * 4)
    assert counts.chunks == 1


def test_wall_clock_never_starts_a_waiting_chunk_after_valid_until():
    """It was in time when it came, but no tick fell between its start and valid_until."""
    between = chunk(START + PERIOD // 2, valid=PERIOD // 4)
    robot, counts = _wall_clock({0: [between]}, 4)
    assert not any(action[0] for action in robot.actions)
    assert (counts.chunks, counts.ignored) == (0, 1)


def test_wall_clock_refused_chunk_stops_the_arm():
    bad = chunk(START + 2 * PERIOD)
    bad.gripper[0] = float('nan')
    robot, counts = _wall_clock({0: [chunk(START)], 2: [bad]}, 5)
    assert [bool(action[0]) for action in robot.actions] == [True, True, False, False, False]
    assert counts.refused == 1


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        (lambda m: setattr(m, 'reference', ActionChunk.REFERENCE_PREVIOUS_TARGET), 'reference 1'),
        (lambda m: setattr(m, 'period', duration_message(2 * PERIOD)), 'period of 0.1 s'),
        (lambda m: setattr(m.header, 'frame_id', 'hand'), "frame is 'hand', base_frame 'world'"),
    ],
)
def test_chunk_that_means_something_else_here_is_refused(change, text):
    other = chunk(START)
    change(other)
    robot = Robot(lambda r: [other], limit=8)
    with pytest.raises(EpisodeAbortedError, match=text):
        _lockstep(robot, 8, 0.01, 0.05)
    assert robot.actions == []
    assert robot.counts.refused > 0, 'an aborted episode keeps its counts'
