"""What has arrived, and whether it makes an observation: the newest frames, state, instruction.

No queue grows here: a newer message takes the place of an older one. Python's
``ApproximateTimeSynchronizer`` is not used because it stops for ever after a clock reset and
deadlocks when its callback raises (``reference/ros.md`` A.7).

All times are integers in nanoseconds. ``now`` is ROS time, the clock of the stamps; ``steady`` is
a clock that always runs, so that silence is noticed even when ROS time stands still.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from lightvla_ros.errors import LightVLAError
from lightvla_ros.reasons import reason

FUTURE_TOLERANCE = 50_000_000


def seconds(duration: int) -> str:
    """Nanoseconds -> text in seconds, for a reason."""
    return f'{duration * 1e-9:.3f} s'


class NotReadyError(LightVLAError):
    """There is no observation now. ``reason`` says why; it is empty when none is due yet."""

    def __init__(self, why: str = '') -> None:
        super().__init__(why)
        self.reason = why


@dataclass(frozen=True)
class Stamped:
    """A message with its stamp (ROS time) and when it arrived (steady), in nanoseconds."""

    message: Any
    stamp: int
    arrived: int


@dataclass(frozen=True)
class Limits:
    """How old and how far apart the parts of an observation may be, in nanoseconds.

    :param image_age: Largest age of an image by its stamp.
    :param silence: Longest steady time without a new image or state.
    :param camera_skew: Largest distance between the stamps of the cameras' images.
    :param state_skew: Largest distance between the state's stamp and the older image's.
    """

    image_age: int
    silence: int
    camera_skew: int
    state_skew: int


@dataclass(frozen=True)
class Job:
    """One observation to act on.

    :param frames: One message per camera, in order.
    :param states: One message per state topic, in order.
    :param stamp: The older image's stamp: the name of the observation.
    :param skew: Distance between the oldest and the newest image.
    :param arrived: When its last image arrived (steady).
    :param generation: Of the inbox when the job was taken; see :attr:`Inbox.generation`.
    """

    frames: tuple[Any, ...]
    states: tuple[Any, ...]
    instruction: str
    stamp: int
    skew: int
    arrived: int
    generation: int


class Inbox:
    """The newest of everything. Any thread may call any method.

    :param cameras: Names of the cameras, in the policy's order.
    :param states: Names of the state topics that the policy needs.
    :param limits: See :class:`Limits`; may be replaced at any time.
    """

    def __init__(self, cameras: tuple[str, ...], states: tuple[str, ...], limits: Limits) -> None:
        self.limits = limits
        self.lock = threading.RLock()
        self.instruction = ''
        self.counts: dict[str, int] = {'received': 0, 'repeated': 0, 'rejected': 0, 'skewed': 0}
        self._cameras = cameras
        self._states = states
        self._generation = 0
        self._newest: dict[str, Stamped] = {}
        self._faults: dict[str, str] = {}
        self._due = 0
        self._last_match: int | None = None

    @property
    def generation(self) -> int:
        """Grows whenever what was under way must not be acted on any more."""
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
            self._newest.clear()
            self._faults.clear()
            self._last_match = None

    def offer(self, source: str, message: Any, stamp: int, now: int, steady: int) -> str:
        """Take a camera's or state topic's message if its stamp can be trusted.

        :returns: Why it was rejected, or an empty string. A stamp that is not newer than the last
            one is no new message: it is counted as repeated and changes nothing.
        """
        with self.lock:
            self.counts['received'] += 1
            if stamp <= 0:
                return self.reject(source, 'bad_stamp')
            if stamp > now + FUTURE_TOLERANCE:
                ahead = f'{seconds(stamp - now)} ahead, at most {seconds(FUTURE_TOLERANCE)}'
                return self.reject(source, 'future_stamp', ahead)
            last = self._newest.get(source)
            if last is not None and stamp <= last.stamp:
                self.counts['repeated'] += 1
                return ''
            if now - stamp > self.limits.image_age:
                code = 'camera_stale' if source in self._cameras else 'state_stale'
                return self.reject(source, code, self._old(now - stamp))
            self._newest[source] = Stamped(message, stamp, steady)
            self._faults.pop(source, None)
            return ''

    def reject(self, source: str, code: str, detail: str = '', stamp: int | None = None) -> str:
        """Note that a message was no good; with ``stamp``, drop it if it is the one stored.

        :returns: The composed reason.
        """
        why = reason(code, source, detail)
        with self.lock:
            self.counts['rejected'] += 1
            self._faults[source] = why
            last = self._newest.get(source)
            if stamp is not None and last is not None and last.stamp == stamp:
                del self._newest[source]
        return why

    def fault(self, now: int, steady: int) -> str:
        """Say what keeps an observation from coming, or return an empty string.

        A passing skew is not a fault: one camera's image always comes before the other's.
        """
        with self.lock:
            why = self._absence(now, steady)
            if why:
                return why
            mismatch = self._mismatch()
            if not mismatch or self._last_match is None:
                self._last_match = steady
            return mismatch if steady - self._last_match > self.limits.silence else ''

    def take(self, now: int, steady: int, interval: int) -> Job:
        """Take the newest observation as a job, once.

        :param interval: The next job is due this long after this one, by the images' stamps.
        :raises NotReadyError: When there is none, or none is due.
        """
        with self.lock:
            why = self._absence(now, steady)
            if why:
                raise NotReadyError(why)
            if not self.instruction:
                raise NotReadyError(reason('no_instruction'))
            frames = [self._newest[name] for name in self._cameras]
            stamp = min(frame.stamp for frame in frames)
            if stamp < self._due:
                raise NotReadyError
            mismatch = self._mismatch()
            if mismatch:
                self.counts['skewed'] += 1
                raise NotReadyError(mismatch)
            # + 1: at least a newer stamp, when the interval is 0
            self._due = stamp + max(interval, 1)
            return Job(
                frames=tuple(frame.message for frame in frames),
                states=tuple(self._newest[name].message for name in self._states),
                instruction=self.instruction,
                stamp=stamp,
                skew=max(frame.stamp for frame in frames) - stamp,
                arrived=max(frame.arrived for frame in frames),
                generation=self._generation,
            )

    def _absence(self, now: int, steady: int) -> str:
        for name in (*self._cameras, *self._states):
            kind = 'camera' if name in self._cameras else 'state'
            newest = self._newest.get(name)
            if newest is None:
                return self._faults.get(name) or reason(f'{kind}_missing', name)
            age, silence = now - newest.stamp, steady - newest.arrived
            if age > self.limits.image_age:
                return self._faults.get(name) or reason(f'{kind}_stale', name, self._old(age))
            if silence > self.limits.silence:
                silent = f'silent {seconds(silence)}, max_silence {seconds(self.limits.silence)}'
                return self._faults.get(name) or reason(f'{kind}_stale', name, silent)
        return ''

    def _mismatch(self) -> str:
        stamps = [self._newest[name].stamp for name in self._cameras]
        skew, bound = max(stamps) - min(stamps), self.limits.camera_skew
        if skew > bound:
            return reason('camera_skew', '', f'{seconds(skew)}, max_camera_skew {seconds(bound)}')
        for name in self._states:
            skew, bound = abs(self._newest[name].stamp - min(stamps)), self.limits.state_skew
            if skew > bound:
                return reason(
                    'state_skew', name, f'{seconds(skew)}, max_state_skew {seconds(bound)}'
                )
        return ''

    def _old(self, age: int) -> str:
        return f'{seconds(age)} old, max_image_age {seconds(self.limits.image_age)}'
