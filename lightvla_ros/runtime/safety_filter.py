"""The last check before a pose is sent to the robot: it bounds the commanded pose, and it stops.

The filter stands between the targets of a chunk and the topic of a controller. It knows what it
has commanded and what was measured, and every pose that it returns keeps these bounds:

1. **Stretch.** It is within ``max_stretch_*`` of the newest believed measured pose. With ``spring``
   it is also within ``max_*speed / SPRING_RATE`` of it: the speed of an arm on a spring is
   proportional to the lead of the set-point, so this is what bounds the arm's speed. A controller
   that holds its last target for ever (crisp_controllers, when its publisher dies) is therefore
   never left with a target that is farther away. This bound outranks all others.
2. **Workspace.** It is inside the box, outside the keep-out boxes, inside the cone. The one
   exception is an arm that is itself outside by more than the stretch: then the pose is the
   measured one, and the stop ``outside_workspace`` lasts until somebody has moved the arm back.
3. **Motion.** With ``displacement``, its speed, acceleration and jerk are bounded, for translation
   and rotation. (A spring's set-point is meant to jump: the lead bounds the arm, and the stiffness
   and the torque rate of its controller bound what follows. A set-point that is slowed down makes
   the arm lag behind the policy's plan, which then closes the hand too early.) A target is
   approached on the straight line, as far as ``stopping_plan.py`` can certify a way to rest that
   keeps these bounds and the workspace. So a target that is too far, too fast or outside shortens
   the motion and never turns it aside: where the motion would end moves straight towards the
   target, and never past it.

Targets that are not finite or farther than a step may be are refused: a policy that asks for them
is broken. A target that is shortened by more than ``shortened_*`` for ``shortened_time`` is refused
as well, because then the arm does not do what the policy plans.

There are two ways to stop:

- **Hold**, as long as there is a cause. It ends by itself.
- **Stop**, when the arm is not where it was sent (``deviation``), the controller has halted, an
  operator stops, or the same cause interrupts a motion twice within ``repeat_window``. Only
  :meth:`SafetyFilter.reset` ends it.

How the commanded pose comes to rest depends on the controller:

- With ``spring``, the target leads the arm by up to 5 cm, and the arm goes where the target is. To
  brake the target would lead the arm on by that lead and the braking distance, 7 cm in all. So the
  target is set to the measured pose at once (*relaxed*). This is a jump of the commanded pose, but
  one that takes the controller's force away, by at most that of the largest stretch; the arm's own
  damping stops it.
- With ``displacement``, the arm follows the target closely. A jump back would be a jerk to a stiff
  controller, so the commanded pose brakes on its certified plan, within 0.2 s and 3 cm by default,
  and keeps all three bounds. If the arm does not follow meanwhile, it is relaxed.
- A stop relaxes in both cases: something is wrong, and force must go.

A target that is set to the measured pose stays there. It is not renewed in every step, because an
arm that sags a little under its load would then sag further and further. Only when the arm is
moved away from it by more than the stretch, by a person, is it set anew.

All times are seconds of a clock that never goes back. None of this is a safety function in the
sense of ISO 13849 or ISO 10218.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np

from lightvla_ros.contract.manifest import EXECUTIONS
from lightvla_ros.errors import ConfigError
from lightvla_ros.policy.poses import Pose, difference, is_pose, length, moved, shortened
from lightvla_ros.runtime.reasons import kind, reason
from lightvla_ros.runtime.safety_limits import BOX_LIMIT, SafetyLimits
from lightvla_ros.runtime.stopping_plan import StoppingPlan
from lightvla_ros.runtime.workspace import CONE_CURVATURE, Workspace

REACH = 0.9  # part of the stretch that a target may use; the rest is for noise of the measurement
UNCOUNTED = ('enable_released',)  # a person may do this as often as they like
# Steady speed of an arm on LIBERO's spring, per lead of its set-point [1/s]; measured in simulation
SPRING_RATE = 6.1
JUMP = 100.0, 1e5, 1e8  # speed, acceleration and jerk with which a spring's set-point may jump
FASTEST_TURN = 2.5  # rad/s; what a Franka arm allows, for poses that it follows closely
SMALL = 1e-6  # m and rad; a target that is missed by less counts as reached
STOPS = ('controller_halted', 'operator_stop')


class Mode(IntEnum):
    """What the filter does."""

    MOVE = 0
    HOLD = 1
    STOP = 2


@dataclass(frozen=True)
class Command:
    """What to publish now.

    :param pose: The commanded pose; None before the first measured one, when nothing may be sent.
    :param mode: Whether it follows the target, holds or is stopped.
    :param why: Why it does not move; empty in ``Mode.MOVE``.
    :param limited: Code of the bound that shortens the target; empty when it is granted whole.
    :param relaxed: Whether the pose was set to the measured one in this step.
    """

    pose: Pose | None
    mode: Mode
    why: str = ''
    limited: str = ''
    relaxed: bool = False


class SafetyFilter:
    """Turns target poses into commanded poses; see the module for what it guarantees.

    Not thread-safe. Call :meth:`measure` and :meth:`enable` when a message comes, and :meth:`step`
    before every publication, 50 to 100 times per second.

    :param execution: What a target means: ``spring``, relative to the measured pose, or
        ``displacement``, relative to the last commanded one.
    :raises ConfigError: When ``execution`` is neither, or the limits do not fit it.
    """

    def __init__(self, limits: SafetyLimits, execution: str) -> None:
        if execution not in EXECUTIONS:
            raise ConfigError(f'execution is {execution!r}; choose {" or ".join(EXECUTIONS)}')
        translation = limits.max_speed, limits.max_acceleration, limits.max_jerk
        rotation = (
            limits.max_angular_speed,
            limits.max_angular_acceleration,
            limits.max_angular_jerk,
        )
        if execution == 'spring':
            translation = rotation = JUMP
            limits = replace(
                limits,
                max_stretch_translation=min(
                    limits.max_stretch_translation, limits.max_speed / SPRING_RATE
                ),
                max_stretch_rotation=min(
                    limits.max_stretch_rotation, limits.max_angular_speed / SPRING_RATE
                ),
            )
        elif limits.max_angular_speed > FASTEST_TURN:
            raise ConfigError(
                f'max_angular_speed is {limits.max_angular_speed:g}; allowed is at most '
                f'{FASTEST_TURN:g} rad/s with displacement'
            )
        self.limits = limits
        self.execution = execution
        self.workspace = Workspace(limits)
        self._translation = StoppingPlan(*translation)
        self._rotation = StoppingPlan(*rotation)
        self._pose: Pose | None = None
        self._now = -math.inf
        self._enabled: tuple[float, bool] | None = None
        self._forget()

    def reset(self) -> bool:
        """Leave a stop. The next two measured poses that agree are believed; until then, hold.

        :returns: Whether it is done; False while the commanded pose moves, which a stop has ended.
        """
        if self._in_motion:
            return False
        self._forget()
        return True

    @property
    def measured(self) -> Pose | None:
        """The newest measured pose that is believed."""
        return self._measured

    @property
    def commanded(self) -> Pose | None:
        """The pose that was commanded last; None if no measured pose belongs to it yet."""
        return self._pose if self._anchored else None

    def _forget(self) -> None:
        self._mode = Mode.HOLD
        self._stop = ''
        self._first: Pose | None = None  # not believed yet
        self._measured: Pose | None = None
        self._measured_at = -math.inf
        self._state_fault = ''
        self._anchored = False  # whether the commanded pose belongs to the measured one
        self._relaxed = False
        self._interrupted: dict[str, float] = {}  # when each cause last interrupted a motion
        self._short_since: float | None = None
        self._short = ''  # why targets were shortened for too long

    def measure(self, now: float, pose: Pose) -> None:
        """Take a measured pose of the end effector in the base frame.

        One that is not a pose, that no arm can reach, or that is too far from the last one, is not
        believed: the arm holds. The first one is believed when the next one is near it.
        """
        if not is_pose(pose) or np.abs(pose.position).max() > BOX_LIMIT:
            self._state_fault = reason('bad_state', 'measured_pose')
            return
        quaternion = np.array(pose.quaternion, float)
        pose = Pose(np.array(pose.position, float), quaternion / length(quaternion))
        last = self._measured or self._first
        jump = self._over(difference(last, pose), 'state_jump') if last is not None else ''
        self._state_fault = reason('state_jump', '', jump) if jump else ''
        if self._measured is None:
            self._first = pose
        if last is not None and not jump:
            self._measured, self._measured_at = pose, now

    def enable(self, now: float, pressed: bool) -> None:
        """Take a message of the dead-man."""
        self._enabled = now, pressed

    def stop(self, code: str, detail: str = '') -> None:
        """Stop until a reset.

        :param code: ``operator_stop`` or ``controller_halted``.
        """
        if code not in STOPS:
            raise KeyError(code)
        self._stop = self._stop or reason(code, '', detail)

    def step(self, now: float, target: Pose | None, why: str = '') -> Command:
        """Return the pose to command now.

        :param target: Where the end effector should be now; None for a hold.
        :param why: The reason for a hold, as in ``reasons.py``.
        """
        late = self._pass_time(now)
        measured = self._measured
        if measured is None or self._now == -math.inf:
            self._mode = Mode.STOP if self._stop else Mode.HOLD
            cause = late or self._state_fault or reason('state_missing')
            return Command(self._pose, self._mode, self._stop or cause)
        self._relaxed = False
        if self._pose is None or not self._anchored:
            self._pose = self._relax(measured)
            self._anchored = True
        gap = difference(self._pose, measured)
        stretched, deviation = self._over(gap, 'max_stretch'), self._over(gap, 'deviation')
        if deviation and not self._stop:
            self._stop = reason('deviation', '', deviation)
        moved_before = self._mode is Mode.MOVE
        base = measured if self.execution == 'spring' else self._pose
        cause, counts = late or self._dead_man(), True
        if not cause and target is None:
            cause, counts = why or reason('no_target'), False  # the policy's hold is no fault
        if not cause and target is not None:
            cause = self._refusal(target, base, measured)
            if not cause and stretched:
                cause = reason('stretched', '', stretched)
            cause = cause or self._state_fault or self._staleness()
        if cause and counts and moved_before and not self._stop:
            self._interrupt(cause)
        if (
            stretched
            or (self._stop and self._mode is not Mode.STOP)
            or (late and self._in_motion)
            or (cause and moved_before and self.execution == 'spring')
        ):
            self._pose = self._relax(measured)
        self._mode = Mode.STOP if self._stop else Mode.HOLD if cause else Mode.MOVE
        limited = ''
        if target is not None and self._mode is Mode.MOVE:
            limited = self._follow(self._pose, measured, target)
        else:
            self._short_since = None
        return Command(self._pose, self._mode, self._stop or cause, limited, self._relaxed)

    @property
    def _in_motion(self) -> bool:
        return bool(self._translation.remaining or self._rotation.remaining)

    def _pass_time(self, now: float) -> str:
        """Follow the plans until now; return why that is not possible."""
        before = self._now
        if not (math.isfinite(now) and now >= before):
            return reason('bad_time', '', f'{now:g} s after {before:g} s')
        self._now = now
        elapsed = now - before if math.isfinite(before) else 0.0
        timeout = self.limits.step_timeout
        if elapsed > timeout:
            return reason('late_step', '', f'{elapsed:.3f} s, step_timeout {timeout:.3f} s')
        if self._pose is not None and self._in_motion:
            self._pose = moved(
                self._pose, self._translation.advance(elapsed), self._rotation.advance(elapsed)
            )
        return ''

    def _relax(self, measured: Pose) -> Pose:
        """Come to rest at the pose of the workspace that is nearest to the measured one."""
        self._relaxed = True
        self._translation.rest()
        self._rotation.rest()
        nearest = self.workspace.nearest(measured)
        if nearest is not None:
            far = self._over(difference(measured, nearest), 'max_stretch')
            if not far:
                return nearest
        self._stop = self._stop or reason('outside_workspace')
        return measured

    def _interrupt(self, cause: str) -> None:
        """Note that a cause ends a motion; the second time within a while is a stop."""
        code = kind(cause)
        if code in UNCOUNTED:
            return
        last = self._interrupted.get(code, -math.inf)
        if self._now - last <= self.limits.repeat_window and self.limits.repeat_window:
            self._stop = reason('repeated_hold', code)
        self._interrupted[code] = self._now

    def _dead_man(self) -> str:
        timeout = self.limits.enable_timeout
        if not timeout:
            return ''
        if self._enabled is None or not 0 <= self._now - self._enabled[0] <= timeout:
            return reason('enable_missing')
        return '' if self._enabled[1] else reason('enable_released')

    def _staleness(self) -> str:
        age, timeout = self._now - self._measured_at, self.limits.state_timeout
        if 0 <= age <= timeout:
            return ''
        detail = f'{age:.3f} s old, state_timeout {timeout:.3f} s'
        return reason('state_stale', 'measured_pose', detail)

    def _refusal(self, target: Pose, base: Pose, measured: Pose) -> str:
        """Return why a target is refused; empty if it may be followed, whole or shortened."""
        if not is_pose(target):
            return reason('bad_target')
        too_long = self._over(difference(base, target), 'max_step')
        if too_long:
            return reason('step_too_long', '', too_long)
        if self._short:
            if self._outside(target, measured) or (self._short == 'too_fast' and self._in_motion):
                return reason(self._short)
            self._short = ''
        return ''

    def _outside(self, target: Pose, measured: Pose) -> str:
        """Return the bound that a target violates by more than may last."""
        tolerated = self.limits.shortened_translation, self.limits.shortened_rotation
        outside = self.workspace.violation(target, tolerated)
        if outside:
            return outside
        gap = difference(self._within_reach(measured, target), target)
        return 'stretched' if self._over(gap, 'shortened') else ''

    def _within_reach(self, measured: Pose, target: Pose) -> Pose:
        """Return a target, brought so near to the measured pose that the stretch allows it."""
        shift, turn = difference(measured, target)
        longest = REACH * self.limits.max_stretch_translation
        widest = REACH * self.limits.max_stretch_rotation
        if length(shift) <= longest and length(turn) <= widest:
            return target
        return moved(measured, shortened(shift, longest), shortened(turn, widest))

    def _follow(self, pose: Pose, measured: Pose, target: Pose) -> str:
        """Plan the motion towards a target; return the bound that shortens it, if any."""
        shift, turn = difference(pose, self._within_reach(measured, target))
        walls = self.workspace.walls(pose.position, self._translation.aim)
        self._translation.redirect(shift, walls)
        cone = self.workspace.cone_walls(pose.quaternion)
        self._rotation.redirect(turn, cone, CONE_CURVATURE)
        shift, turn = difference(pose, target)
        missing = shift - self._translation.aim, turn - self._rotation.aim
        if self.execution == 'spring':  # along the path that was certified, at once
            self._pose = moved(pose, self._translation.aim, self._rotation.aim)
            self._translation.rest()
            self._rotation.rest()
        if length(missing[0]) <= SMALL and length(missing[1]) <= SMALL:
            self._short_since = None
            return ''
        limited = self.workspace.violation(target)
        if not limited:
            reached = self._within_reach(measured, target) is target
            limited = 'too_fast' if reached else 'stretched'
        if not self._over(missing, 'shortened'):
            self._short_since = None
        elif self._short_since is None:
            self._short_since = self._now
        elif self._now - self._short_since > self.limits.shortened_time:
            self._short = limited  # the next step holds
        return limited

    def _over(self, gap: tuple[np.ndarray, np.ndarray], bound: str) -> str:
        """Say by how much a translation and a rotation exceed a pair of limits; empty: not."""
        for part, size, unit in (
            ('translation', length(gap[0]), 'm'),
            ('rotation', length(gap[1]), 'rad'),
        ):
            name = f'{bound}_{part}'
            limit = getattr(self.limits, name)
            if size > limit:
                return f'{size:.3f} {unit}, {name} {limit:g}'
        return ''
