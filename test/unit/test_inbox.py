"""What makes an observation."""

import pytest

from lightvla_ros.inbox import Inbox, Limits, NotReadyError
from lightvla_ros.reasons import MAX_BYTES, REASONS, cut, kind, reason

MS = 1_000_000
LIMITS = Limits(image_age=500 * MS, silence=500 * MS, camera_skew=30 * MS, state_skew=100 * MS)
START = 10**12


@pytest.fixture
def inbox():
    box = Inbox(('left', 'right'), ('pose',), LIMITS)
    box.instruction = 'go'
    return box


def offer_all(inbox, at, skew=0):
    for source in ('left', 'right', 'pose'):
        stamp = at - (skew if source == 'right' else 0)
        assert inbox.offer(source, f'{source} {at}', stamp, at, at) == ''


def test_a_job_holds_the_newest_of_everything(inbox):
    offer_all(inbox, START)
    offer_all(inbox, START + 50 * MS, skew=10 * MS)
    job = inbox.take(START + 60 * MS, START + 60 * MS, 0)
    assert job.frames == (f'left {START + 50 * MS}', f'right {START + 50 * MS}')
    assert job.stamp == START + 40 * MS
    assert job.skew == 10 * MS


def test_a_job_is_given_once_and_the_next_is_due_after_the_interval(inbox):
    for step in range(0, 450, 50):
        offer_all(inbox, START + step * MS)
        now = START + step * MS
        if step in (0, 400):
            assert inbox.take(now, now, 400 * MS).stamp == now
        with pytest.raises(NotReadyError) as caught:
            inbox.take(now, now, 400 * MS)
        assert caught.value.reason == ''


def test_invalidate_makes_a_job_due_at_once(inbox):
    offer_all(inbox, START)
    job = inbox.take(START, START, 400 * MS)
    inbox.invalidate()
    again = inbox.take(START, START, 400 * MS)
    assert again.stamp == job.stamp
    assert again.generation != job.generation


def test_one_image_ahead_is_no_fault_but_no_job_either(inbox):
    offer_all(inbox, START)
    later = START + 50 * MS
    inbox.offer('left', 'l', later, later, later)
    assert inbox.fault(later, later) == ''
    with pytest.raises(NotReadyError, match='camera_skew'):
        inbox.take(later, later, 0)


def test_old_state_is_not_mixed_with_new_images(inbox):
    """In lockstep the images of a step may come before its state."""
    offer_all(inbox, START)
    later = START + 400 * MS
    for camera in ('left', 'right'):
        inbox.offer(camera, 'x', later, later, later)
    with pytest.raises(NotReadyError, match='state_skew:pose'):
        inbox.take(later, later, 0)
    inbox.offer('pose', 'x', later, later, later)
    assert inbox.take(later, later, 0).stamp == later


def test_silence_is_noticed_though_ros_time_stands_still(inbox):
    offer_all(inbox, START)
    assert inbox.fault(START, START + 400 * MS) == ''
    assert kind(inbox.fault(START, START + 600 * MS)) == 'camera_stale:left'


def test_rejection_says_more_than_missing(inbox):
    assert inbox.offer('left', 'x', 0, START, START) == 'bad_stamp:left'
    assert inbox.fault(START, START) == 'bad_stamp:left'


def test_rejecting_the_stored_frame_lets_it_come_again(inbox):
    offer_all(inbox, START)
    inbox.reject('left', 'bad_data', stamp=START)
    assert inbox.fault(START, START) == 'bad_data:left'
    assert inbox.offer('left', 'x', START, START, START) == ''
    assert inbox.fault(START, START) == ''


def test_reasons_are_known():
    assert reason('camera_stale', 'wrist') == 'camera_stale:wrist'
    with pytest.raises(KeyError):
        reason('out_of_cheese')
    assert max(len(code) for code in REASONS) < 64


def test_a_reason_fits_into_its_message_and_keeps_its_kind():
    why = reason('camera_stale', 'wrist', 'ツ' * 200)
    assert len(why.encode()) <= MAX_BYTES
    assert kind(why) == 'camera_stale:wrist'
    assert why.endswith('…')
    assert reason('paused') == kind(reason('paused')) == 'paused'
    assert cut('a\ud800b', 10) == 'a?b'


def _stale(inbox):
    return inbox.fault(START + 620 * MS, START)


def _silent(inbox):
    return inbox.fault(START, START + 620 * MS)


def _too_old(inbox):
    return inbox.offer('left', 'x', START + 1, START + 620 * MS + 1, START)


def _ahead(inbox):
    return inbox.offer('left', 'x', START + 620 * MS, START, START)


def _skewed(source):
    def skewed(inbox):
        for name in ('left', 'right', 'pose'):
            if name != source:
                inbox.offer(name, 'x', START + 450 * MS, START + 450 * MS, START + 450 * MS)
        with pytest.raises(NotReadyError) as caught:
            inbox.take(START + 450 * MS, START + 450 * MS, 0)
        return caught.value.reason

    return skewed


@pytest.mark.parametrize(
    ('provoke', 'said'),
    [
        (_stale, 'camera_stale:left 0.620 s old, max_image_age 0.500 s'),
        (_silent, 'camera_stale:left silent 0.620 s, max_silence 0.500 s'),
        (_too_old, 'camera_stale:left 0.620 s old, max_image_age 0.500 s'),
        (_ahead, 'future_stamp:left 0.620 s ahead, at most 0.050 s'),
        (_skewed('left'), 'camera_skew 0.450 s, max_camera_skew 0.030 s'),
        (_skewed('pose'), 'state_skew:pose 0.450 s, max_state_skew 0.100 s'),
    ],
)
def test_fault_a_time_reason_says_by_how_much_and_past_which_bound(inbox, provoke, said):
    offer_all(inbox, START)
    assert provoke(inbox) == said
