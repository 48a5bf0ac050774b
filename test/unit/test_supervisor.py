"""Whether the robot may move: every state with its reason, without ROS."""

import pytest

from lightvla_ros.runtime.supervisor import Situation, State, Supervisor

BOUND = 0.5  # s, max_inference_time
STALE, NO_WORDS = 'camera_stale:wrist 0.6 s old', 'no_instruction'


def judge(supervisor, **situation):
    return supervisor.judge(Situation(**situation), BOUND)


@pytest.mark.parametrize(
    ('before', 'now', 'state', 'why'),
    [
        # what is wrong with inputs
        ({}, {'inputs': STALE}, State.WAITING, STALE),
        ({}, {'inputs': STALE, 'moving': True}, State.HOLDING, STALE),
        ({'trouble': 'reset'}, {'inputs': STALE}, State.HOLDING, STALE),
        ({}, {'clock': False}, State.WAITING, 'no_clock'),
        ({}, {'clock': False, 'moving': True}, State.WAITING, 'no_clock'),
        # what is missing
        ({}, {'uninstructed': NO_WORDS}, State.WAITING, NO_WORDS),
        ({}, {'inputs': STALE, 'uninstructed': NO_WORDS}, State.WAITING, STALE),
        ({}, {}, State.WAITING, 'waiting_for_chunk'),
        ({'trouble': 'too_late'}, {}, State.HOLDING, 'too_late'),
        # what moves
        ({}, {'moving': True}, State.RUNNING, ''),
        ({'failures': 2}, {'moving': True}, State.RUNNING, ''),
        # a pause stands above all that passes by itself
        ({'paused': True}, {'moving': True}, State.HOLDING, 'paused'),
        ({'paused': True}, {'inputs': STALE, 'moving': True}, State.HOLDING, 'paused'),
        # a fault stands above all
        ({'fault': 'fault:engine_error'}, {'moving': True}, State.FAULT, 'fault:engine_error'),
        ({'fault': 'fault:engine_error', 'paused': True}, {}, State.FAULT, 'fault:engine_error'),
        ({}, {'moving': True, 'alive': False}, State.FAULT, 'fault:inference_thread'),
        ({'paused': True}, {'alive': False}, State.FAULT, 'fault:inference_thread'),
        ({}, {'moving': True, 'busy': BOUND}, State.RUNNING, ''),
    ],
)
def test_state_and_reason(before, now, state, why):
    assert judge(Supervisor(active=True, **before), **now) == (state, why)


def test_a_fault_that_was_found_stays():
    supervisor = Supervisor(active=True)
    assert supervisor.may_infer
    state, why = judge(supervisor, moving=True, busy=0.7)
    assert (state, why) == (
        State.FAULT,
        'inference_timeout 0.700 s, max_inference_time 0.500 s',
    )
    assert not supervisor.may_infer
    assert judge(supervisor, moving=True) == (State.FAULT, why), 'the inference came back'


@pytest.mark.parametrize('change', [{'active': False}, {'paused': True}, {'fault': 'fault'}])
def test_when_nothing_may_be_inferred(change):
    assert not Supervisor(**{'active': True, **change}).may_infer


def test_failures_pause_longer_and_longer_and_end_in_a_fault():
    supervisor = Supervisor(active=True)
    assert [supervisor.failed(False, 8) for _ in range(7)] == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    assert judge(supervisor) == (State.HOLDING, 'engine_error')
    supervisor.failed(True, 8)
    assert judge(supervisor) == (State.FAULT, 'fault:bad_output')


def test_a_chunk_that_is_sent_ends_a_row_of_failures():
    supervisor = Supervisor(active=True)
    for _ in range(5):
        supervisor.failed(True, 2)
        supervisor.sent()
    assert judge(supervisor, moving=True) == (State.RUNNING, '')


def test_a_message_that_is_not_published_is_a_fault_while_active():
    supervisor = Supervisor()
    supervisor.publish_failed('status')
    assert not supervisor.fault
    supervisor.active = True
    supervisor.publish_failed('chunk')
    supervisor.publish_failed('hold')
    assert supervisor.fault == 'fault:publish_chunk', 'the first one says what happened'
