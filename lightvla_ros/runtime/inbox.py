"""Keeps the newest frames, states and instruction, and pairs them into observations.

The last few messages of each source are kept, so that an image that is delivered late still meets
the images that were taken at the same time. No queue grows without bound. Python's
``ApproximateTimeSynchronizer`` is not used because it stops permanently after a clock reset and
deadlocks when its callback raises (``docs/explanation/timing.md``).

All times are integers in nanoseconds. ``now`` is ROS time, the clock of the stamps; ``steady`` is
a clock that always runs, so that silence is noticed even when ROS time stands still.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lightvla_ros.runtime.reasons import reason

FUTURE_TOLERANCE = 50_000_000
SET_BACK = 1_000_000_000  # if stamps go back by more and continue there, the clock was set back
FRAMES = 16  # kept per camera: bridges a delay of 0.26 s between two cameras at 60 Hz
STATES = 128  # kept per state topic: 0.6 s at 200 messages per second


@dataclass(frozen=True, eq=False)
class Stamped:
    """A message's content, its stamp (ROS time) and its arrival (steady time), in nanoseconds."""

    content: Any
    stamp: int
    arrived: int


@dataclass(frozen=True)
class Freshness:
    """How old and how far apart the parts of an observation may be, in nanoseconds.

    :param image_age: Largest age of an image by its stamp.
    :param silence: Longest time on the steady clock without a new image or state.
    :param camera_skew: Largest distance between the stamps of the cameras' images.
    :param state_skew: Largest distance between the state's stamp and the oldest image's.
    """

    image_age: int
    silence: int
    camera_skew: int
    state_skew: int


@dataclass(frozen=True)
class Job:
    """One observation to act on.

    :param frames: The picture of each camera, by name, in the policy's order.
    :param states: The part of the robot's state of each state topic, by name.
    :param generation: :attr:`Inbox.generation` when the job was taken.
    """

    frames: dict[str, Stamped]
    states: dict[str, Stamped]
    instruction: str
    generation: int

    @property
    def stamp(self) -> int:
        """Stamp of the oldest image; it identifies the observation."""
        return min(frame.stamp for frame in self.frames.values())

    @property
    def skew(self) -> int:
        """Distance between the stamps of the oldest and the newest image."""
        return max(frame.stamp for frame in self.frames.values()) - self.stamp

    @property
    def arrived(self) -> int:
        """When the last image arrived (steady time)."""
        return max(frame.arrived for frame in self.frames.values())

    @property
    def delay(self) -> int:
        """How much later the slowest camera's image was delivered than the fastest one's."""
        lags = [frame.arrived - frame.stamp for frame in self.frames.values()]
        return max(lags) - min(lags)


class Inbox:
    """Holds the newest message of every source. Any thread may call any method.

    :param cameras: Names of the cameras, in the policy's order.
    :param states: Names of the state topics that the policy needs.
    :param freshness: See :class:`Freshness`; may be replaced at any time.
    :ivar obstacle: A reason found elsewhere; while it is set there is no observation.
    """

    def __init__(
        self, cameras: tuple[str, ...], states: tuple[str, ...], freshness: Freshness
    ) -> None:
        self.freshness = freshness
        self.lock = threading.RLock()
        self.instruction = ''
        self.obstacle = ''
        self.counts: dict[str, int] = {'received': 0, 'repeated': 0, 'rejected': 0, 'skewed': 0}
        self._cameras = cameras
        self._states = states
        self._generation = 0
        self._kept: dict[str, deque[Stamped]] = {
            **{name: deque(maxlen=FRAMES) for name in cameras},
            **{name: deque(maxlen=STATES) for name in states},
        }
        self._faults: dict[str, str] = {}  # cleared by the source's next good message
        self._unusable: dict[str, str] = {}  # found in decoding; cleared by the next decoded job
        self._behind: dict[str, int] = {}  # the last stamp that was far behind the newest
        self._due = 0
        self._matched: tuple[int, int] | None = None  # newest set's stamp, and since when (steady)

    @property
    def generation(self) -> int:
        """Number that grows whenever jobs taken before must not be acted on any more."""
        return self._generation

    def invalidate(self) -> None:
        """Make every job taken so far void, and allow a new one at once."""
        with self.lock:
            self._generation += 1
            self._due = 0

    def clear(self) -> None:
        """Forget all frames and states as well, for instance after a clock jump."""
        with self.lock:
            self.invalidate()
            for kept in self._kept.values():
                kept.clear()
            self._faults.clear()
            self._unusable.clear()
            self._behind.clear()
            self._matched = None

    def offer(self, source: str, content: Any, stamp: int, now: int, steady: int) -> str:
        """Store the content of a camera's or state topic's message if its stamp is plausible.

        :returns: Why it was rejected, or an empty string. A message whose stamp is not newer than
            the last one is counted as repeated and changes nothing.
        """
        with self.lock:
            self.counts['received'] += 1
            kept = self._kept[source]
            if stamp <= 0:
                return self.reject(source, 'bad_stamp')
            if stamp > now + FUTURE_TOLERANCE:
                ahead = f'{seconds(stamp - now)} ahead, at most {seconds(FUTURE_TOLERANCE)}'
                return self.reject(source, 'future_stamp', ahead)
            if kept and stamp <= kept[-1].stamp:
                return self._not_newer(source, stamp)
            self._behind.pop(source, None)
            if now - stamp > self.freshness.image_age:
                old = f'arrived {self._old(now - stamp)}: a slow network, or clocks differ'
                return self.reject(source, self._code(source, 'stale'), old)
            kept.append(Stamped(content, stamp, steady))
            self._faults.pop(source, None)
            return ''

    def _not_newer(self, source: str, stamp: int) -> str:
        """Count a message as repeated, or restart its source when the source's clock was set back.

        A single message far behind may have been delivered out of order. If a second one follows
        that is newer than the first, the source's clock was set back; without a restart all new
        messages would be ignored until that clock catches up.
        """
        self.counts['repeated'] += 1
        back = self._kept[source][-1].stamp - stamp
        before = self._behind.pop(source, stamp)
        if back <= SET_BACK:
            return ''
        if before >= stamp:
            self._behind[source] = stamp
            return ''
        self._kept[source].clear()
        self._matched = None
        return self.reject(source, 'clock_jump', f'its stamps went back by {seconds(back)}')

    def reject(self, source: str, code: str, detail: str = '') -> str:
        """Note that a source's message was bad: a fault until its next good one.

        :returns: The composed reason.
        """
        with self.lock:
            self.counts['rejected'] += 1
            self._faults[source] = reason(code, source, detail)
            return self._faults[source]

    def refuse(self, job: Job, source: str, code: str, detail: str = '') -> str:
        """Note that a job's message could not be decoded, and forget it.

        The next set of new messages is due at once. The fault lasts until :meth:`accept`, because
        a message that arrives later is not known to be good before it is decoded.

        :returns: The composed reason.
        """
        with self.lock:
            self.counts['rejected'] += 1
            self._unusable[source] = reason(code, source, detail)
            bad = (job.frames | job.states)[source]
            if bad in self._kept[source]:
                self._kept[source].remove(bad)
            self._due = job.stamp
            return self._unusable[source]

    def accept(self) -> None:
        """Note that all messages of a job could be decoded."""
        with self.lock:
            self._unusable.clear()

    def fault(self, now: int, steady: int) -> str:
        """Return the reason why no observation can be made; empty when there is none.

        A short skew is not a fault: one camera's image always arrives before the other's.
        """
        with self.lock:
            why = self._absence(now, steady) or next(iter(self._unusable.values()), '')
            if why:
                return why
            newest = self._newest_set(self._matched[0] if self._matched else 0)
            stamp = _oldest(newest[0]) if newest else None
            if self._matched is None or stamp not in (None, self._matched[0]):
                self._matched = stamp or 0, steady
            matched, since = self._matched
            return self._mismatch(matched + 1) if steady - since > self.freshness.silence else ''

    def take(self, now: int, steady: int, interval: int) -> Job | None:
        """Take the newest matching set of images and the states nearest to it.

        Each set is taken once; after :meth:`invalidate`, again if it is still fresh.

        :param interval: The next job is due this long after this one, by the images' stamps.
        :returns: None when there is no instruction, no set that matches, or none that is due;
            :meth:`fault` says what keeps sets from matching.
        """
        with self.lock:
            if not self.instruction or self._absence(now, steady):
                return None
            # the newest images may be fresh and not match, while an old set does
            since = max(self._due, now - self.freshness.image_age)
            newest = self._newest_set(since)
            if newest is None:
                due = min(self._kept[name][-1].stamp for name in self._cameras) >= self._due
                self.counts['skewed'] += due
                return None
            job = Job(*newest, self.instruction, self._generation)
            # + 1: at least a newer stamp, when the interval is 0
            self._due = job.stamp + max(interval, 1)
            return job

    def newest(self, names: Iterable[str]) -> dict[str, Stamped]:
        """Return the newest message of each of these sources that has one."""
        with self.lock:
            return {name: self._kept[name][-1] for name in names if self._kept[name]}

    def missing(self) -> tuple[str, ...]:
        """Return the cameras and state topics from which no good message is stored."""
        with self.lock:
            return tuple(name for name, kept in self._kept.items() if not kept)

    def _absence(self, now: int, steady: int) -> str:
        if self.obstacle:
            return self.obstacle
        for name, kept in self._kept.items():
            if name in self._faults:
                return self._faults[name]
            if not kept:
                return self._unusable.get(name) or self._absent(self._code(name, 'missing'))
            age, silence = now - kept[-1].stamp, steady - kept[-1].arrived
            if age > self.freshness.image_age:
                return reason(self._code(name, 'stale'), name, self._old(age))
            if silence > self.freshness.silence:
                silent = f'silent {seconds(silence)}, max_silence {seconds(self.freshness.silence)}'
                return reason(self._code(name, 'stale'), name, silent)
        return ''

    def _absent(self, code: str) -> str:
        """Name all cameras, or all states, from which nothing has come."""
        absent = [name for name in self.missing() if self._code(name, 'missing') == code]
        known = self._faults.keys() | self._unusable.keys()
        return reason(code, ','.join(name for name in absent if name not in known))

    def _newest_set(self, since: int) -> tuple[dict[str, Stamped], dict[str, Stamped]] | None:
        """Return the newest frames and states within the skews; no image is older than ``since``.

        Each camera contributes the first frame that is not older than the set's oldest one; each
        state topic contributes the message nearest to that oldest frame.
        """
        for stamp in self._stamps(since):
            frames = self._frames_at(stamp)
            if frames is None:
                continue
            states = {name: _nearest(self._kept[name], stamp) for name in self._states}
            skews = (abs(state.stamp - stamp) for state in states.values())
            if all(skew <= self.freshness.state_skew for skew in skews):
                return frames, states
        return None

    def _stamps(self, since: int) -> list[int]:
        """Return the stamps of all images that are not older than ``since``, newest first."""
        stamps = set()
        for name in self._cameras:
            for frame in reversed(self._kept[name]):
                if frame.stamp < since:
                    break
                stamps.add(frame.stamp)
        return sorted(stamps, reverse=True)

    def _frames_at(self, stamp: int) -> dict[str, Stamped] | None:
        frames = {}
        for name in self._cameras:
            index = bisect_left(self._kept[name], stamp, key=_stamp)
            if index == len(self._kept[name]):
                return None
            frames[name] = self._kept[name][index]
            if frames[name].stamp - stamp > self.freshness.camera_skew:
                return None
        return frames

    def _mismatch(self, since: int) -> str:
        """Return the reason why the messages from ``since`` on do not form a set."""
        stamp = next((each for each in self._stamps(since) if self._frames_at(each)), None)
        if stamp is None:
            return reason('camera_skew', '', self._camera_skew())
        skews = {n: abs(_nearest(self._kept[n], stamp).stamp - stamp) for n in self._states}
        worst = max(skews, key=lambda name: skews[name])
        bound = seconds(self.freshness.state_skew)
        detail = f'{seconds(skews[worst])} from the images, max_state_skew {bound}'
        return reason('state_skew', worst, detail)

    def _camera_skew(self) -> str:
        newest = {name: self._kept[name][-1] for name in self._cameras}
        first = max(newest, key=lambda name: newest[name].stamp)
        last = min(newest, key=lambda name: newest[name].stamp)
        bound = f'max_camera_skew {seconds(self.freshness.camera_skew)}'
        if newest[last].stamp < self._kept[first][0].stamp:
            # all kept frames of the faster camera are newer than the slower camera's newest
            delay = seconds(newest[first].stamp - newest[last].stamp)
            return f'delay between cameras {delay} ({last} comes late), {bound}'
        apart = abs(_nearest(self._kept[first], newest[last].stamp).stamp - newest[last].stamp)
        return f'stamps of {first} and {last} {seconds(apart)} apart, {bound}'

    def _code(self, source: str, what: str) -> str:
        return f'{"camera" if source in self._cameras else "state"}_{what}'

    def _old(self, age: int) -> str:
        return f'{seconds(age)} old, max_image_age {seconds(self.freshness.image_age)}'


def seconds(duration: int) -> str:
    """Nanoseconds -> text in seconds, for a reason."""
    return f'{duration * 1e-9:.3f} s'


def _stamp(item: Stamped) -> int:
    return item.stamp


def _oldest(items: dict[str, Stamped]) -> int:
    return min(item.stamp for item in items.values())


def _nearest(kept: Sequence[Stamped], stamp: int) -> Stamped:
    index = bisect_left(kept, stamp, key=_stamp)
    around = [kept[at] for at in (index - 1, index) if 0 <= at < len(kept)]
    return min(around, key=lambda item: abs(item.stamp - stamp))
