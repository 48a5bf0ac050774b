"""A safety filter with a checker behind it, which asserts every bound on what it returns.

The checks measure poses alone, with their own arithmetic, and know nothing of plans.
"""

import math
from dataclasses import replace

import numpy as np

from lightvla_ros.policy.poses import Pose, turn_between
from lightvla_ros.runtime.reasons import REASONS, kind
from lightvla_ros.runtime.safety_filter import Mode, SafetyFilter
from lightvla_ros.runtime.safety_limits import SafetyLimits

DOWN = np.array([1.0, 0.0, 0.0, 0.0])
HOME = Pose(np.array([0.5, 0.0, 0.3]), DOWN)
TICK = 0.01
LIMITS = SafetyLimits(keep_out=((0.55, -0.1, 0.01, 0.65, 0.1, 0.2),))
ZERO = np.zeros(3)


def vector(*numbers):
    return np.array(numbers, dtype=float)


def tilt(quaternion):
    """The angle between the tool's z axis and straight down."""
    x, y, _, _ = quaternion / np.linalg.norm(quaternion)
    return math.acos(max(-1.0, min(1.0, -(1 - 2 * (x * x + y * y)))))


def gap(a, b):
    return (
        math.dist(a.position.tolist(), b.position.tolist()),
        math.hypot(*turn_between(a.quaternion, b.quaternion).tolist()),
    )


class Checker:
    """Drives a filter and asserts every bound on what it returns.

    Speed, acceleration and jerk are divided differences of the poses over their real times. They
    start anew where the pose was set to the measured one.
    """

    def __init__(self, filter_):
        self.filter = filter_
        self.limits = filter_.limits
        self.first = self.believed = None
        self.last = None  # time and pose
        self.rates = []  # of the last three intervals: times, velocity, angular velocity
        self.moves = 0
        self.anchoring = True  # the next pose may be the measured one, and move at once

    def measure(self, now, pose):
        self.filter.measure(now, pose)
        numbers = np.concatenate([pose.position, pose.quaternion])
        if not np.isfinite(numbers).all() or abs(np.linalg.norm(pose.quaternion) - 1) > 1e-3:
            return
        last, self.first = self.believed or self.first, pose
        if last is None:
            return
        shift, turn = gap(last, pose)
        if shift > self.limits.state_jump_translation or turn > self.limits.state_jump_rotation:
            return
        self.believed = pose

    def find(self, now, pose):
        """Measure a pose twice, as the first one is not believed alone."""
        self.measure(now, pose)
        self.measure(now, pose)

    def reset(self):
        if self.filter.reset():
            self.first = self.believed = None
            self.anchoring = True

    def step(self, now, target, why=''):
        command = self.filter.step(now, target, why)
        self.check(now, command)
        return command

    def check(self, now, command):
        limits = self.limits
        assert (command.mode is Mode.MOVE) == (not command.why), command
        assert not command.why or kind(command.why).split(':')[0] in REASONS
        if command.pose is None:
            assert self.believed is None or not math.isfinite(now)
            return
        position, quaternion = command.pose
        assert np.isfinite(position).all()
        assert abs(np.linalg.norm(quaternion) - 1) < 1e-9
        if self.believed is not None and math.isfinite(now):
            shift, turn = gap(command.pose, self.believed)
            longest, widest = limits.max_stretch_translation, limits.max_stretch_rotation
            if self.filter.execution == 'spring':  # a lead of so much is this speed of the arm
                longest = min(longest, limits.max_speed / 6.1)
                widest = min(widest, limits.max_angular_speed / 6.1)
            assert shift <= longest + 1e-9, command
            assert turn <= widest + 1e-9, command
        same = self.last is not None and command.pose is self.last[1]
        if not same and not self.is_allowed(command.pose):
            # the arm itself is outside by more than the stretch
            assert command.mode is Mode.STOP or self.believed is None
            assert self.last is None or command.relaxed or gap(command.pose, self.last[1])[0] == 0
            if command.relaxed:
                assert max(gap(command.pose, self.believed)) < 1e-9
        self.check_motion(now, command)

    def is_allowed(self, pose):
        low, high = np.array(self.limits.box_min), np.array(self.limits.box_max)
        position = pose.position
        inside = (position >= low - 1e-8).all() and (position <= high + 1e-8).all()
        for box in self.limits.keep_out:
            box = np.array(box)
            if (position > box[:3] + 1e-8).all() and (position < box[3:] - 1e-8).all():
                return False
        return bool(inside and tilt(pose.quaternion) <= self.limits.max_tilt + 1e-6)

    def check_motion(self, now, command):
        if not math.isfinite(now):  # no time passes
            assert self.last is None or command.relaxed or gap(self.last[1], command.pose)[0] == 0
            now = self.last[0] if self.last else 0.0
        if command.relaxed:
            assert command.mode is not Mode.MOVE or self.last is None or self.anchoring, command
            self.anchoring = False
            self.last, self.rates = (now, command.pose), []
            return
        if self.last is None:
            self.last = now, command.pose
            return
        before, pose = self.last
        if not now > before and self.filter.execution == 'displacement':
            assert gap(pose, command.pose)[0] == 0
            return
        if self.filter.execution == 'spring':  # a set-point jumps; its lead is what is bounded
            self.moves += command.pose is not pose
            self.last = now, command.pose
            return
        span = now - before
        rate = np.zeros(6)
        if command.pose is not pose:
            rate[:3] = (command.pose.position - pose.position) / span
            rate[3:] = turn_between(pose.quaternion, command.pose.quaternion) / span
        self.moves += bool(rate.any())
        self.last = now, command.pose
        self.rates = [*self.rates[-2:], (before, now, rate)]
        limits = self.limits
        self.assert_bound(rate, limits.max_speed, limits.max_angular_speed, span, command)
        if len(self.rates) < 2:
            return
        (a, b, first), (_, c, second) = self.rates[-2:]
        bend = (second - first) / ((c - a) / 2)
        self.assert_bound(
            bend, limits.max_acceleration, limits.max_angular_acceleration, (b - a) ** 2, command
        )
        if len(self.rates) < 3:
            return
        start, middle, early = self.rates[-3]
        earlier = (first - early) / ((b - start) / 2)
        jerk = (bend - earlier) / ((c - start) / 3)
        self.assert_bound(jerk, limits.max_jerk, limits.max_angular_jerk, span**3, command)

    @staticmethod
    def assert_bound(rate, linear, angular, span, command):
        """Divided differences of rounded positions are off by about 1e-15 / span."""
        slack = 1e-12 / span
        rate = rate.tolist()
        assert math.hypot(*rate[:3]) <= linear * (1 + 1e-6) + slack, command
        assert math.hypot(*rate[3:]) <= angular * (1 + 1e-6) + slack, command


def checker(execution='displacement', limits=LIMITS, **changes):
    return Checker(SafetyFilter(replace(limits, **changes), execution))


def started(execution='displacement', limits=LIMITS, at=HOME, **changes):
    """A filter that follows targets, with the dead-man pressed, at time 0."""
    arm = checker(execution, limits, **changes)
    arm.filter.enable(0.0, True)
    arm.find(0.0, at)
    assert arm.step(0.0, at).mode is Mode.MOVE
    return arm


def follow(arm, target, steps, start=0.0, lag=0.0, dead_man=True):
    """Ask for the same target; the measured pose is the commanded one, ``lag`` behind [part]."""
    now = start
    for _ in range(steps):
        now += TICK
        pose = arm.last[1]
        if lag:
            behind = arm.believed
            pose = Pose(behind.position + (pose.position - behind.position) * (1 - lag), DOWN)
        if dead_man:
            arm.filter.enable(now, True)
        arm.measure(now, pose)
        command = arm.step(now, target)
    return now, command
