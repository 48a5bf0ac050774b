"""Judges how messages arrive: rate, jitter, age by their stamps, and clocks against each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lightvla_ros.doctor.findings import Finding, failed, passed, warned
from lightvla_ros.runtime.inbox import FRAMES, FUTURE_TOLERANCE, Freshness

OTHER_CLOCK = 3600.0  # s; an older message has no delay but another clock, such as simulated time
CLOCKS_APART = 0.1  # s between the smallest ages of two sources
AHEAD = 0.005  # s by which stamps may be ahead of this computer's clock
SLOW = 0.9  # of the control rate
DROPPED = 2.5  # median gaps; a longer gap is a dropped message
CLOCK_CURE = (
    'synchronise the clocks of all computers (chrony or ptp4l); docs/how-to/doctor.md says how to '
    'see their difference'
)


@dataclass(frozen=True)
class Arrival:
    """When a message was made and when it arrived.

    :param stamp: By its header [ns].
    :param clock: ROS time of its arrival [ns].
    :param steady: Steady clock at its arrival [ns].
    :param frame: Its ``frame_id``.
    :param size: Of its picture as it was sent [bytes]; 0 for a state.
    """

    stamp: int
    clock: int
    steady: int
    frame: str = ''
    size: int = 0


def ages(arrivals: Sequence[Arrival]) -> np.ndarray:
    """Return the age of each message when it arrived, by its stamp, float64 [N] in seconds."""
    return np.array([each.clock - each.stamp for each in arrivals]) * 1e-9


def judge_stream(
    source: str, arrivals: Sequence[Arrival], freshness: Freshness, control_period: float
) -> Iterator[Finding]:
    """Judge rate, jitter, stamps and age of one camera or state topic.

    :param arrivals: At least one, in the order of their arrival.
    :param freshness: The node's limits: beyond these it holds the robot still.
    :param control_period: Of the policy [s].
    """
    yield _rate(source, arrivals, freshness, control_period)
    yield _stamps(source, arrivals, freshness)


def _rate(
    source: str, arrivals: Sequence[Arrival], freshness: Freshness, control_period: float
) -> Finding:
    subject, cure = f'{source} rate', 'look at the driver, its rate and the network'
    if len(arrivals) < 3:
        return failed(subject, f'only {len(arrivals)} messages came', cure)
    gaps = np.diff([each.steady for each in arrivals]) * 1e-9
    median, longest = float(np.median(gaps)), float(gaps.max())
    rate = len(gaps) / gaps.sum()
    sent = sum(each.size for each in arrivals[1:]) / gaps.sum() * 1e-6
    volume = f'{sent:.2f} MB/s, ' if sent else ''
    text = f'{rate:.1f} Hz, {volume}jitter {gaps.std() * 1e3:.1f} ms, '
    text += f'longest gap {longest * 1e3:.0f} ms'
    silence = freshness.silence * 1e-9
    if longest > silence:
        return failed(subject, f'{text}; the robot holds after max_silence {silence:g} s', cure)
    if rate < SLOW / control_period:
        text = f'{text}; the policy was trained at {1 / control_period:g} Hz'
        return warned(subject, text, f'raise its rate: each chunk starts up to {median:.2g} s late')
    if longest > max(DROPPED * median, control_period):
        return warned(subject, f'{text}: messages are dropped or delayed', cure)
    return passed(subject, text)


def _stamps(source: str, arrivals: Sequence[Arrival], freshness: Freshness) -> Finding:
    subject = f'{source} stamps'
    stamps = np.array([each.stamp for each in arrivals])
    if (stamps <= 0).any():
        cure = 'make its driver fill header.stamp with the time of the measurement'
        return failed(subject, 'header.stamp is empty', cure)
    old = ages(arrivals)
    middle, oldest, limit = float(np.median(old)), float(old.max()), freshness.image_age * 1e-9
    text = f'age {middle:.3f} s (median), {oldest:.3f} s (largest), by its stamps'
    if abs(middle) > OTHER_CLOCK:
        cure = (
            'its clock is another one than this node reads: with simulated time pass '
            'use_sim_time:=true; else set its clock, or make its driver stamp with ROS time'
        )
        return failed(subject, text, cure)
    if old.min() < -FUTURE_TOLERANCE * 1e-9:
        return failed(subject, f'{text}; they lie {-old.min():.3f} s in the future', CLOCK_CURE)
    if oldest > limit:
        cure = f'less delay (compressed images, no Wi-Fi), or, if the clocks differ: {CLOCK_CURE}'
        return failed(subject, f'{text}; the node takes max_image_age {limit:g} s', cure)
    back = int((np.diff(stamps) <= 0).sum())
    if back:
        cure = 'two sources on one topic, or a driver that repeats pictures or its clock was set'
        return warned(subject, f'{text}; {back} stamps are not newer than the last', cure)
    if oldest > limit / 2:
        cure = 'less delay: the policy acts on what was'
        return warned(subject, f'{text}; half of max_image_age {limit:g} s', cure)
    return passed(subject, text)


def judge_clocks(sources: Mapping[str, Sequence[Arrival]]) -> Iterator[Finding]:
    """Compare the sources' clocks with this computer's and with each other.

    The smallest age of a source is its delay plus the difference of its clock. Delays differ by
    tens of milliseconds; more than that are clocks.
    """
    least = {name: float(ages(each).min()) for name, each in sources.items() if len(each)}
    least = {name: age for name, age in least.items() if abs(age) < OTHER_CLOCK}
    if not least:
        return
    ahead = {name: -age for name, age in least.items() if age < -AHEAD}
    first, last = min(least, key=least.__getitem__), max(least, key=least.__getitem__)
    apart = least[last] - least[first]
    listed = ', '.join(f'{name} {age:.3f} s' for name, age in least.items())
    text = f'smallest ages by the stamps: {listed}'
    if ahead:
        worst = max(ahead, key=ahead.__getitem__)
        late = f'{worst} is ahead of this clock by {ahead[worst]:.3f} s'
        yield warned('clocks', f'{text}; {late}', CLOCK_CURE)
    elif apart > CLOCKS_APART:
        late = f'{last} is {apart:.3f} s behind {first}'
        yield warned('clocks', f'{text}; {late}: another clock, or a long delay', CLOCK_CURE)
    else:
        yield passed('clocks', text)


def judge_skews(
    cameras: Mapping[str, Sequence[Arrival]],
    states: Mapping[str, Sequence[Arrival]],
    freshness: Freshness,
) -> Iterator[Finding]:
    """Judge the delay between the cameras, and whether stamps are near enough to be paired.

    :param cameras: By name, in the policy's order; those without messages are left out.
    """
    if len(cameras) > 1:
        yield _cameras(cameras, freshness)
    first = next(iter(cameras.values()), ())
    for name, arrivals in states.items():
        if not len(first) or not len(arrivals):
            continue
        apart, limit = _apart(first, arrivals), freshness.state_skew * 1e-9
        text = f'stamps {apart * 1e3:.0f} ms from those of the pictures'
        if apart > limit:
            cure = f'raise the rate of {name}, or synchronise the clocks: {CLOCK_CURE}'
            yield failed(f'{name} skew', f'{text}; the node takes max_state_skew {limit:g} s', cure)
        else:
            yield passed(f'{name} skew', text)


def _cameras(cameras: Mapping[str, Sequence[Arrival]], freshness: Freshness) -> Finding:
    names, limit = list(cameras), freshness.camera_skew * 1e-9
    first, *others = names
    apart = {name: _apart(cameras[first], cameras[name]) for name in others}
    worst = max(apart, key=apart.__getitem__)
    late = {name: float(np.median(ages(each))) for name, each in cameras.items()}
    slow, fast = max(late, key=late.__getitem__), min(late, key=late.__getitem__)
    delay = late[slow] - late[fast]
    text = (
        f'stamps of {first} and {worst} {apart[worst] * 1e3:.0f} ms apart; {slow} comes '
        f'{delay * 1e3:.0f} ms later than {fast}'
    )
    if apart[worst] > limit:
        cure = 'trigger the cameras together, raise their rate, or raise max_camera_skew'
        return failed('camera delay', f'{text}; the node takes max_camera_skew {limit:g} s', cure)
    span = cameras[fast][-1].stamp - cameras[fast][0].stamp
    kept = FRAMES * span * 1e-9 / max(len(cameras[fast]) - 1, 1)
    cure = f'compress the pictures of {slow}, or take it off the Wi-Fi'
    if delay > kept:
        return failed('camera delay', f'{text}; {FRAMES} pictures are kept, {kept:.2f} s', cure)
    if delay > CLOCKS_APART:
        return warned('camera delay', f'{text}; the faster one waits for it', cure)
    return passed('camera delay', text)


def _apart(one: Sequence[Arrival], other: Sequence[Arrival]) -> float:
    """Return the median distance of the rarer source's stamps from the nearest of the other's [s].

    Only stamps within the time that both cover count: the ends would have no neighbour.
    """
    few, many = (np.sort([each.stamp for each in part]) for part in sorted((one, other), key=len))
    inside = few[(few >= many[0]) & (few <= many[-1])]
    if not len(inside):
        return float(max(few[0] - many[-1], many[0] - few[-1])) * 1e-9
    right = np.searchsorted(many, inside)
    near = np.minimum(many[right] - inside, inside - many[np.maximum(right - 1, 0)])
    # a stamp that equals the first one has no left neighbour but itself
    return float(np.median(np.abs(near))) * 1e-9
