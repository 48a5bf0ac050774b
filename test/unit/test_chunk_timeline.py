"""Which pose a stream of chunks asks for at a time, and when the gripper moves."""

import math
from dataclasses import replace

import numpy as np
import pytest

from lightvla_ros.policy.actions import Chunk, hold, quaternion_from_axis_angle
from lightvla_ros.policy.poses import Pose, moved, turn_between
from lightvla_ros.runtime.chunk_timeline import ChunkTimeline, ReceivedChunk
from lightvla_ros.runtime.gripper_switch import GripperSwitch
from lightvla_ros.runtime.reasons import kind
from lightvla_ros.runtime.safety_filter import Mode, SafetyFilter
from lightvla_ros.runtime.safety_limits import SafetyLimits

MS = 1_000_000
PERIOD = 50 * MS
START = 10**18
HOME = Pose(np.array([0.5, 0.0, 0.3]), np.array([1.0, 0.0, 0.0, 0.0]))
AWAY = Pose(np.array([0.4, 0.1, 0.2]), np.array([1.0, 0.0, 0.0, 0.0]))


def received(steps, start=START, execution='spring', sequence=0, turn=0.0, **changes):
    """A chunk whose step i moves ``steps[i]`` metres along y and turns about z."""
    count = len(steps)
    chunk = Chunk(
        translations=np.column_stack([np.zeros(count), steps, np.zeros(count)]),
        rotations=quaternion_from_axis_angle(np.tile([0, 0, turn], (count, 1))),
        gripper=np.linspace(0, 1, count),
        period=PERIOD * 1e-9,
    )
    given = ReceivedChunk(chunk, start, start + 200 * MS, 'one', sequence, execution)
    return replace(given, **changes)


def y_at(timeline, now, measured=HOME, commanded=HOME):
    target = timeline.target_at(now, measured, commanded)
    return None if target is None else float(target.position[1])


def test_a_spring_is_set_once_per_step_from_the_measured_pose():
    timeline = ChunkTimeline('spring')
    assert timeline.offer(received([0.01, 0.02], turn=0.1), START) == ''
    target = timeline.target_at(START, HOME, AWAY)
    assert target.position == pytest.approx([0.5, 0.01, 0.3])
    assert turn_between(HOME.quaternion, target.quaternion) == pytest.approx([0, 0, 0.1])
    ahead = moved(HOME, np.array([0, 0.004, 0]), np.zeros(3))
    assert y_at(timeline, START + 30 * MS, ahead) == pytest.approx(0.01)
    assert y_at(timeline, START + 50 * MS, ahead) == pytest.approx(0.024)
    assert timeline.opening == 1.0
    # the next chunk is late: the set-point stays for a while
    assert y_at(timeline, START + 199 * MS, AWAY) == pytest.approx(0.024)
    assert y_at(timeline, START + 200 * MS) is None
    assert (timeline.why, timeline.opening) == ('no_target', None)


def test_a_displacement_moves_evenly_from_the_end_of_the_step_before():
    timeline = ChunkTimeline('displacement')
    timeline.offer(received([0.01, 0.02], execution='displacement', turn=0.1), START)
    assert y_at(timeline, START, AWAY) == pytest.approx(0.0)
    assert y_at(timeline, START + 20 * MS, AWAY) == pytest.approx(0.004)
    behind = moved(HOME, np.array([0, 0.002, 0]), np.zeros(3))
    assert y_at(timeline, START + 60 * MS, AWAY, behind) == pytest.approx(0.014)
    target = timeline.target_at(START + 75 * MS, AWAY, behind)
    assert turn_between(HOME.quaternion, target.quaternion) == pytest.approx([0, 0, 0.15])


def test_a_displacement_that_cannot_be_followed_does_not_pile_up():
    timeline = ChunkTimeline('displacement')
    timeline.offer(received([0.05] * 8, execution='displacement'), START)
    for step in range(8):
        y = y_at(timeline, START + step * PERIOD + 49 * MS)
        assert y <= 0.03 + 0.05


def test_steps_that_are_past_are_dropped_and_a_late_chunk_is_refused():
    timeline = ChunkTimeline('spring')
    assert timeline.offer(received([0.01, 0.02, 0.03]), START + 110 * MS) == ''
    assert y_at(timeline, START + 110 * MS) == pytest.approx(0.03)
    late = received([0.01] * 8, sequence=1)
    assert kind(timeline.offer(late, START + 201 * MS)) == 'too_late'
    assert y_at(timeline, START + 249 * MS) == pytest.approx(0.03)  # of the chunk before
    assert y_at(timeline, START + 250 * MS) is None


def test_chunks_that_all_come_late_are_the_cause_that_is_told():
    """Fault: over a slow network each chunk was refused, and the status said `no_target`."""
    timeline = ChunkTimeline('spring')
    timeline.offer(received([0.01] * 8), START + 500 * MS)
    assert y_at(timeline, START + 500 * MS) is None
    assert timeline.why == 'too_late 0.300 s after its valid_until'
    timeline.offer(received([0.01], START + 600 * MS, sequence=1), START + 600 * MS)
    assert y_at(timeline, START + 600 * MS) == pytest.approx(0.01)
    assert y_at(timeline, START + 800 * MS) is None
    assert timeline.why == 'no_target'


def test_a_newer_chunk_takes_over_when_it_starts():
    timeline = ChunkTimeline('spring')
    timeline.offer(received([0.01] * 4), START)
    timeline.offer(received([0.02] * 4, START + 100 * MS, sequence=1), START + 60 * MS)
    assert y_at(timeline, START + 90 * MS) == pytest.approx(0.01)
    assert y_at(timeline, START + 100 * MS) == pytest.approx(0.02)


def test_a_hold_is_obeyed_at_once_whoever_sends_it():
    for changes in ({}, {'session': 'other'}, {'sequence': -5}, {'execution': 'displacement'}):
        timeline = ChunkTimeline('spring')
        timeline.offer(received([0.01] * 4), START)
        assert y_at(timeline, START) == pytest.approx(0.01)
        still = replace(received([0.0], sequence=1), chunk=hold(0.05), why='paused', **changes)
        assert timeline.offer(still, START + MS) == ''
        assert y_at(timeline, START + MS) is None
        assert timeline.why == 'paused'


def test_chunks_of_another_session_or_kind_and_old_ones_are_refused():
    timeline = ChunkTimeline('spring')
    timeline.offer(received([0.01] * 4, sequence=5), START)
    for sequence in (4, 5):
        again = received([0.02] * 4, sequence=sequence)
        assert kind(timeline.offer(again, START)) == 'old_sequence'
    assert y_at(timeline, START) == pytest.approx(0.01)
    other = received([0.02] * 4, sequence=6, session='other')
    assert timeline.offer(other, START) == 'wrong_session'
    assert y_at(timeline, START) is None
    assert timeline.offer(received([0.03] * 4, sequence=6), START) == ''
    assert y_at(timeline, START) == pytest.approx(0.03)
    unfit = received([0.02] * 4, sequence=7, execution='displacement')
    assert kind(timeline.offer(unfit, START)) == 'wrong_reference'
    assert y_at(timeline, START) is None
    timeline.reset()
    assert timeline.offer(other, START) == ''


def test_time_that_goes_back_asks_for_nothing():
    timeline = ChunkTimeline('spring')
    timeline.offer(received([0.01] * 4), START)
    assert y_at(timeline, START) == pytest.approx(0.01)
    assert y_at(timeline, START - 60 * MS) is None


def test_the_first_steps_after_a_seam_are_blended_but_not_the_gripper():
    timeline = ChunkTimeline('spring', blended=2)
    timeline.offer(received([0.01] * 8), START)
    assert y_at(timeline, START) == pytest.approx(0.01)
    new = received([0.04] * 8, START, sequence=1)
    new = replace(new, chunk=replace(new.chunk, gripper=np.zeros(8)))
    timeline.offer(new, START + 60 * MS)
    found = []
    for step in range(1, 5):
        found.append(y_at(timeline, START + step * PERIOD + 10 * MS))
        assert timeline.opening == 0.0
    assert found == pytest.approx([0.02, 0.03, 0.04, 0.04])


def test_a_seam_after_the_end_of_the_old_chunk_is_not_blended():
    timeline = ChunkTimeline('spring', blended=2)
    timeline.offer(received([0.01]), START)
    assert y_at(timeline, START) == pytest.approx(0.01)
    timeline.offer(received([0.04] * 4, START + 50 * MS, sequence=1), START + 50 * MS)
    assert y_at(timeline, START + 50 * MS) == pytest.approx(0.04)


def test_a_seam_is_the_jump_between_what_both_chunks_ask_for_at_the_same_time():
    for blended, jump in ((0, 0.03), (2, 0.01)):
        timeline = ChunkTimeline('spring', blended)
        timeline.offer(received([0.01, 0.02, 0.03, 0.04], turn=0.1), START)
        y_at(timeline, START)
        assert timeline.seams.summary() == {'seams': 0, 'seam_gaps': 0}
        new = received([0.06] * 8, START + 100 * MS, sequence=1, turn=-0.2)
        timeline.offer(new, START + 60 * MS)
        for tick in range(6, 70):
            y_at(timeline, START + tick * 10 * MS)
        assert list(timeline.seams.jumps) == [pytest.approx((jump, 10 * jump))]
        assert timeline.seams.gaps == 1, 'the steps ran out after the last chunk'
        found = timeline.seams.summary()
        assert found['seam_p95_mm'] == pytest.approx(1e3 * jump)
        assert found['seam_p50_deg'] == pytest.approx(math.degrees(10 * jump), abs=1e-3)


def test_a_seam_at_the_very_end_of_a_chunk_is_compared_with_its_last_step():
    timeline = ChunkTimeline('displacement')
    timeline.offer(received([0.01, 0.02], execution='displacement'), START)
    y_at(timeline, START + 90 * MS)
    new = received([0.05] * 8, START + 100 * MS, 'displacement', sequence=1)
    timeline.offer(new, START + 95 * MS)
    y_at(timeline, START + 100 * MS)
    assert list(timeline.seams.jumps) == [pytest.approx((0.03, 0.0))]
    timeline.reset()
    assert len(timeline.seams.jumps) == 1, 'figures outlast a session'


@pytest.mark.parametrize(('execution', 'least'), [('spring', 0.02), ('displacement', 0.09)])
def test_chunks_through_the_safety_filter_move_an_arm(execution, least):
    """At 100 Hz, chunks of 8 steps of 5 mm each 200 ms; the arm goes where it is sent."""
    timeline = ChunkTimeline(execution, blended=2)
    safe = SafetyFilter(SafetyLimits(enable_timeout=0.0), execution)
    arm, pose = HOME, HOME
    safe.measure(0.0, arm)  # the first one is not believed alone
    for tick in range(100):
        now, seconds = START + tick * 10 * MS, tick * 0.01
        if tick % 20 == 0:
            chunk = received([0.005] * 8, now, execution, sequence=tick)
            assert timeline.offer(chunk, now) == ''
        safe.measure(seconds, arm)
        command = safe.step(seconds, timeline.target_at(now, arm, pose))
        assert command.mode is Mode.MOVE
        pose = command.pose
        # robosuite's spring goes at 6.1 times its stretch per second, a stiff controller follows
        follow = 0.061 if execution == 'spring' else 0.5
        arm = Pose(arm.position + follow * (pose.position - arm.position), pose.quaternion)
    travelled = pose.position[1] - HOME.position[1]
    assert least < travelled <= 0.1


def test_the_gripper_moves_on_a_change_of_side_only():
    switch = GripperSwitch()
    assert switch.command(0.0, 0.5) is None
    assert switch.command(0.1, None) is None
    assert switch.command(0.2, 0.71) is True
    assert switch.command(0.9, 0.95) is None
    assert switch.command(1.0, 0.31) is None
    assert switch.command(1.1, 0.29) is False
    assert switch.command(1.3, 0.9) is None  # too soon
    assert switch.command(1.35, 0.1) is None
    assert switch.command(1.45, 0.9) is True


def test_a_gripper_value_that_flickers_sends_at_most_one_command_per_interval():
    switch, sent = GripperSwitch(), []
    for tick in range(1000):
        if switch.command(tick * 0.01, float(tick % 2)) is not None:
            sent.append(tick * 0.01)
    assert np.diff(sent).min() >= 0.3 - 1e-9
    assert GripperSwitch().command(0.0, math.nan) is None


def test_half_the_speed_is_twice_the_time_and_half_the_lead_of_a_spring():
    timeline = ChunkTimeline('spring', speed=0.5)
    timeline.offer(received([0.02, 0.03]), START)
    assert y_at(timeline, START + 99 * MS) == pytest.approx(0.01)
    assert y_at(timeline, START + 100 * MS) == pytest.approx(0.015)
    assert y_at(timeline, START + 299 * MS, AWAY) == pytest.approx(0.015)
    assert y_at(timeline, START + 300 * MS) is None


def test_half_the_speed_is_the_same_way_of_a_displacement():
    timeline = ChunkTimeline('displacement', speed=0.5)
    timeline.offer(received([0.02], execution='displacement'), START)
    assert y_at(timeline, START + 50 * MS) == pytest.approx(0.01)
    assert y_at(timeline, START + 99 * MS) == pytest.approx(0.0198)
