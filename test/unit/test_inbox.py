"""What makes an observation."""

from dataclasses import replace

import pytest

from lightvla_ros.runtime.inbox import Freshness, Inbox
from lightvla_ros.runtime.reasons import MAX_BYTES, REASONS, cut, kind, reason

MS = 1_000_000
FRESHNESS = Freshness(
    image_age=500 * MS, silence=500 * MS, camera_skew=30 * MS, state_skew=100 * MS
)
START = 10**12


@pytest.fixture
def inbox():
    box = Inbox(('left', 'right'), ('pose',), FRESHNESS)
    box.instruction = 'go'
    return box


def offer_all(inbox, at, skew=0):
    for source in ('left', 'right', 'pose'):
        stamp = at - (skew if source == 'right' else 0)
        assert inbox.offer(source, f'{source} {at}', stamp, at, at) == ''


def messages(parts):
    return {name: part.content for name, part in parts.items()}


def test_a_job_holds_the_newest_of_everything(inbox):
    offer_all(inbox, START)
    at = START + 50 * MS
    offer_all(inbox, at, skew=10 * MS)
    job = inbox.take(START + 60 * MS, START + 60 * MS, 0)
    assert messages(job.frames) == {'left': f'left {at}', 'right': f'right {at}'}
    assert messages(job.states) == {'pose': f'pose {at}'}
    assert job.stamp == START + 40 * MS
    assert job.skew == 10 * MS


def test_a_job_is_given_once_and_the_next_is_due_after_the_interval(inbox):
    for step in range(0, 450, 50):
        offer_all(inbox, START + step * MS)
        now = START + step * MS
        if step in (0, 400):
            assert inbox.take(now, now, 400 * MS).stamp == now
        assert inbox.take(now, now, 400 * MS) is None
        assert inbox.fault(now, now) == ''


def test_invalidate_makes_a_job_due_at_once(inbox):
    offer_all(inbox, START)
    job = inbox.take(START, START, 400 * MS)
    inbox.invalidate()
    again = inbox.take(START, START, 400 * MS)
    assert again.stamp == job.stamp
    assert again.generation != job.generation


def test_fault_an_old_set_is_not_taken_for_want_of_a_fresh_one(inbox):
    """After a standstill, the newest image of each camera is fresh but has no partner yet."""
    offer_all(inbox, START)
    for source, at in (('left', 700), ('right', 743), ('pose', 743)):
        now = START + at * MS
        inbox.offer(source, source, now, now, now)
    inbox.invalidate()
    assert inbox.fault(now, now) == ''
    assert inbox.take(now, now, 0) is None


def test_one_image_ahead_is_no_fault_but_no_job_either(inbox):
    offer_all(inbox, START)
    inbox.take(START, START, 0)
    later = START + 50 * MS
    inbox.offer('left', 'l', later, later, later)
    assert inbox.fault(later, later) == ''
    assert inbox.take(later, later, 0) is None


def test_old_state_is_not_mixed_with_new_images(inbox):
    """In lockstep the images of a step may come before its state."""
    offer_all(inbox, START)
    inbox.take(START, START, 0)
    later = START + 400 * MS
    for camera in ('left', 'right'):
        inbox.offer(camera, 'x', later, later, later)
    assert inbox.take(later, later, 0) is None
    assert inbox.counts['skewed'] == 1
    inbox.offer('pose', 'x', later, later, later)
    assert inbox.take(later, later, 0).stamp == later


def test_silence_is_noticed_though_ros_time_stands_still(inbox):
    offer_all(inbox, START)
    assert inbox.fault(START, START + 400 * MS) == ''
    assert kind(inbox.fault(START, START + 600 * MS)) == 'camera_stale:left'


def test_all_that_are_missing_are_named_at_once(inbox):
    assert inbox.fault(START, START) == 'camera_missing:left,right'
    assert inbox.missing() == ('left', 'right', 'pose')
    for source in ('left', 'right'):
        inbox.offer(source, '', START, START, START)
    assert inbox.fault(START, START) == 'state_missing:pose'


def test_an_obstacle_found_elsewhere_keeps_from_acting(inbox):
    offer_all(inbox, START)
    inbox.obstacle = reason('two_publishers', 'left', '/camera and /rosbag2_player')
    assert inbox.fault(START, START) == inbox.obstacle
    assert inbox.take(START, START, 0) is None
    inbox.obstacle = ''
    assert inbox.take(START, START, 0).stamp == START


def test_rejection_says_more_than_missing(inbox):
    assert inbox.offer('left', 'x', 0, START, START) == 'bad_stamp:left'
    assert inbox.fault(START, START) == 'bad_stamp:left'


@pytest.mark.parametrize('bad', ['left', 'right', 'pose'])
@pytest.mark.parametrize('skew', [-10 * MS, 0, 10 * MS])
def test_fault_the_bad_message_is_looked_up_by_the_stamp_of_another(inbox, bad, skew):
    """Whichever image is the older one, the bad one is dropped, and the next one tried at once."""
    offer_all(inbox, START, skew)
    job = inbox.take(START, START, 400 * MS)
    assert inbox.refuse(job, bad, 'bad_data', 'no JPEG') == f'bad_data:{bad} no JPEG'
    assert inbox.take(START, START, 400 * MS) is None
    assert inbox.fault(START, START) == f'bad_data:{bad} no JPEG'
    later = START + 50 * MS
    offer_all(inbox, later, skew)
    assert inbox.fault(later, later) == f'bad_data:{bad} no JPEG', 'that it came does not mend it'
    job = inbox.take(later, later, 400 * MS)
    assert {**job.frames, **job.states}[bad].content == f'{bad} {later}'
    inbox.accept()
    assert inbox.fault(later, later) == ''


def test_a_message_that_was_refused_may_come_again(inbox):
    """The bridge sends an unanswered observation again, with the same stamp."""
    offer_all(inbox, START)
    inbox.refuse(inbox.take(START, START, 400 * MS), 'left', 'bad_data')
    assert inbox.offer('left', 'mended', START, START, START) == ''
    assert inbox.take(START, START, 400 * MS).frames['left'].content == 'mended'


def test_a_bad_header_is_a_fault_at_once(inbox):
    offer_all(inbox, START)
    inbox.reject('left', 'bad_size')
    assert inbox.fault(START, START) == 'bad_size:left'
    assert inbox.take(START, START, 0) is None
    assert inbox.offer('left', 'x', START + 1, START + 1, START + 1) == ''
    assert inbox.fault(START + 1, START + 1) == ''


@pytest.mark.parametrize('late', ['left', 'right', 'pose'])
def test_fault_equal_stamps_with_another_delay_never_pair(inbox, late):
    """Hardware-synchronised at 60 Hz; what is late comes 72 ms after what was taken with it."""
    inbox.freshness = replace(FRESHNESS, state_skew=5 * MS)
    period, taken = 16 * MS, []
    arrivals = []
    for frame in range(60):
        stamp = START + frame * period
        for name in ('left', 'right', 'pose'):
            arrivals.append((stamp + (72 * MS if name == late else 2 * MS), name, stamp))
    for now, name, stamp in sorted(arrivals):
        assert inbox.offer(name, stamp, stamp, now, now) == ''
        job = inbox.take(now, now, 0)
        if job is None:
            continue
        assert {part.stamp for part in (job.frames | job.states).values()} == {job.stamp}
        assert job.delay == (0 if late == 'pose' else 70 * MS)
        taken.append(job.stamp)
    assert taken == [START + frame * period for frame in range(60)]
    assert inbox.fault(now, now) == ''


def test_the_state_nearest_to_the_images_is_taken(inbox):
    for at in range(0, 60, 4):
        inbox.offer('pose', at, START + at * MS, START + at * MS, START)
    for camera in ('left', 'right'):
        inbox.offer(camera, 'x', START + 21 * MS, START + 60 * MS, START)
    assert messages(inbox.take(START + 60 * MS, START, 0).states) == {'pose': 20}


@pytest.mark.parametrize('source', ['left', 'right', 'pose'])
def test_fault_a_clock_set_back_is_a_camera_that_is_stale_for_as_long(inbox, source):
    """One source's clock alone; with a large age allowed nothing else would notice."""
    inbox.freshness = replace(FRESHNESS, image_age=10_000 * MS)
    offer_all(inbox, START)
    said = []
    for at in range(50, 500, 50):
        now = START + at * MS
        for name in ('left', 'right', 'pose'):
            stamp = now - (5000 * MS if name == source else 0)
            said.append(inbox.offer(name, at, stamp, now, now))
    assert [why for why in said if why] == [f'clock_jump:{source} its stamps went back by 4.900 s']
    assert inbox.counts['repeated'] == 2, 'the others were taken'


def test_an_old_image_out_of_order_is_no_clock_set_back(inbox):
    inbox.freshness = replace(FRESHNESS, image_age=10_000 * MS)
    for at in range(0, 1000, 50):
        now = START + at * MS
        offer_all(inbox, now)
        assert inbox.offer('left', 'old', now - 5000 * MS, now, now) == ''  # of a second publisher
        assert inbox.offer('left', 'late', now - 70 * MS, now, now) == ''
    frames = inbox.take(now, now, 0).frames
    assert messages(frames) == {'left': f'left {now}', 'right': f'right {now}'}


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


def _behind(period, **behind):
    """Sources that send on and on, some with stamps that are behind."""

    def feed(inbox):
        for at in range(0, 700, period):
            now = START + at * MS
            for name in ('left', 'right', 'pose'):
                inbox.offer(name, 'x', now - behind.get(name, 0) * MS, now, now)
            why = inbox.fault(now, now)
        return why

    return feed


@pytest.mark.parametrize(
    ('provoke', 'said'),
    [
        (_stale, 'camera_stale:left 0.620 s old, max_image_age 0.500 s'),
        (_silent, 'camera_stale:left silent 0.620 s, max_silence 0.500 s'),
        (
            _too_old,
            'camera_stale:left arrived 0.620 s old, max_image_age 0.500 s: a slow network, or '
            'clocks differ',
        ),
        (_ahead, 'future_stamp:left 0.620 s ahead, at most 0.050 s'),
        (
            _behind(100, right=45),
            'camera_skew stamps of left and right 0.045 s apart, max_camera_skew 0.030 s',
        ),
        (
            _behind(10, right=200),
            'camera_skew delay between cameras 0.200 s (right comes late), max_camera_skew 0.030 s',
        ),
        (
            _behind(300, pose=145),
            'state_skew:pose 0.145 s from the images, max_state_skew 0.100 s',
        ),
    ],
)
def test_fault_a_time_reason_says_by_how_much_and_past_which_bound(inbox, provoke, said):
    offer_all(inbox, START)
    assert provoke(inbox) == said
