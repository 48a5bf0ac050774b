"""The bounds of the safety filter: defaults for an FR3 over a table, with units and ranges.

Lengths, poses and axes are in the base frame of the robot. The defaults are far below what makes a
Franka arm stop by itself (1.7 m/s, 13 m/s^2, 6500 m/s^3): 0.25 m/s is the reduced speed of
ISO 10218.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from lightvla_ros.errors import ConfigError

BOX_LIMIT = 3.0  # m; no arm of this kind reaches farther


def _number(default: float, low: float, high: float, unit: str, meaning: str) -> Any:
    """Declare a number and the range that is allowed for it, both ends included."""
    return field(
        default=default, metadata={'low': low, 'high': high, 'unit': unit, 'meaning': meaning}
    )


def _point(default: tuple[float, ...], unit: str, meaning: str) -> Any:
    """Declare three numbers, x y z."""
    return field(default=default, metadata={'size': 3, 'unit': unit, 'meaning': meaning})


@dataclass(frozen=True)
class SafetyLimits:
    """Bounds on the commanded pose; each field says in its metadata what it means.

    :raises ConfigError: When fields are out of range or contradict each other; it names them.
    """

    max_speed: float = _number(
        0.25,
        0.001,
        1.0,
        'm/s',
        'Largest speed of the commanded position; of the arm, with `spring`.',
    )
    max_acceleration: float = _number(
        3.0,
        0.01,
        13.0,
        'm/s^2',
        'Largest acceleration of the commanded position (`displacement`).',
    )
    max_jerk: float = _number(
        300.0, 1.0, 6500.0, 'm/s^3', 'Largest jerk of the commanded position (`displacement`).'
    )
    max_angular_speed: float = _number(
        0.6,
        0.001,
        10.0,
        'rad/s',
        'Largest angular speed of the commanded pose, at most 2.5 with `displacement`; of the arm, '
        'with `spring`.',
    )
    max_angular_acceleration: float = _number(
        6.0,
        0.01,
        25.0,
        'rad/s^2',
        'Largest angular acceleration of the commanded pose (`displacement`).',
    )
    max_angular_jerk: float = _number(
        600.0,
        1.0,
        12500.0,
        'rad/s^3',
        'Largest angular jerk of the commanded pose (`displacement`).',
    )
    max_step_translation: float = _number(
        0.087,
        0.0001,
        0.2,
        'm',
        'Longest distance of a target from the pose that it is relative to; more is refused.',
    )
    max_step_rotation: float = _number(
        0.87,
        0.0001,
        1.0,
        'rad',
        'Largest rotation of a target from the pose that it is relative to; more is refused.',
    )
    box_min: tuple[float, ...] = _point(
        (0.25, -0.4, 0.01), 'm', 'Lower corner of the workspace, which the position never leaves.'
    )
    box_max: tuple[float, ...] = _point((0.70, 0.4, 0.6), 'm', 'Upper corner of the workspace.')
    keep_out: tuple[tuple[float, ...], ...] = field(
        default=(),
        metadata={
            'size': 6,
            'unit': 'm',
            'meaning': 'Boxes in the workspace that the position never enters: lower corner, then '
            'upper corner, of each.',
        },
    )
    approach_axis: tuple[float, ...] = _point(
        (0.0, 0.0, -1.0), '1', 'Nominal direction of the z axis of the end effector.'
    )
    max_tilt: float = _number(
        0.7, 0.01, math.pi, 'rad', 'Largest angle between that axis and its nominal direction.'
    )
    max_stretch_translation: float = _number(
        0.05, 0.001, 0.2, 'm', 'Largest distance between commanded and measured position.'
    )
    max_stretch_rotation: float = _number(
        0.5, 0.01, 1.0, 'rad', 'Largest angle between commanded and measured orientation.'
    )
    deviation_translation: float = _number(
        0.08, 0.001, 0.5, 'm', 'Distance between commanded and measured position that stops.'
    )
    deviation_rotation: float = _number(
        0.8, 0.01, 3.0, 'rad', 'Angle between commanded and measured orientation that stops.'
    )
    state_jump_translation: float = _number(
        0.1, 0.001, 1.0, 'm', 'Distance between two measured positions that is not believed.'
    )
    state_jump_rotation: float = _number(
        1.0, 0.01, 3.0, 'rad', 'Angle between two measured orientations that is not believed.'
    )
    state_timeout: float = _number(0.1, 0.001, 1.0, 's', 'Largest age of the measured pose.')
    step_timeout: float = _number(
        0.1, 0.001, 1.0, 's', 'Longest time between two steps of the filter.'
    )
    enable_timeout: float = _number(
        0.25, 0.0, 2.0, 's', 'Longest silence of the dead-man; 0: none is needed.'
    )
    shortened_translation: float = _number(
        0.03, 0.001, 1.0, 'm', 'Shortening a target by more than this for shortened_time holds.'
    )
    shortened_rotation: float = _number(
        0.3, 0.01, 3.0, 'rad', 'Shortening a rotation by more than this for shortened_time holds.'
    )
    shortened_time: float = _number(1.0, 0.01, 60.0, 's', 'How long targets may be shortened.')
    repeat_window: float = _number(
        5.0, 0.0, 600.0, 's', 'Two holds of the same cause within this time stop; 0: never.'
    )

    def __post_init__(self) -> None:
        problems = [problem for each in fields(self) for problem in self._problems_of(each)]
        if not problems:
            problems = self._contradictions()
        if problems:
            raise ConfigError('; '.join(problems))

    def _problems_of(self, each: Any) -> list[str]:
        value, about = getattr(self, each.name), each.metadata
        if each.name == 'keep_out':
            rows = value if isinstance(value, (tuple, list)) else [value]
            return [
                f'keep_out[{i}] is {row!r}; allowed are six finite numbers [m], each lower one '
                'below its upper one'
                for i, row in enumerate(rows)
                if not _numbers(row, 6)
                or not all(low < high for low, high in zip(row[:3], row[3:], strict=True))
            ]
        if 'size' in about:
            if not _numbers(value, about['size']):
                return [f'{each.name} is {value!r}; allowed are three finite numbers']
            return []
        low, high, unit = about['low'], about['high'], about['unit']
        if not (_numbers([value], 1) and low <= value <= high):
            return [f'{each.name} is {value!r}; allowed is {low:g} to {high:g} {unit}']
        return []

    def _contradictions(self) -> list[str]:
        found = []
        for axis, low, high in zip('xyz', self.box_min, self.box_max, strict=True):
            if not -BOX_LIMIT <= low < high <= BOX_LIMIT:
                found.append(
                    f'box_min and box_max: {axis} is {low:g} to {high:g} m; the first must be the '
                    f'smaller one, both within {BOX_LIMIT:g} m'
                )
        if not 0.999 <= math.hypot(*self.approach_axis) <= 1.001:
            found.append(f'approach_axis is {self.approach_axis!r}; its length must be 1')
        for part, speed in (('translation', self.max_speed), ('rotation', self.max_angular_speed)):
            stretch = getattr(self, f'max_stretch_{part}')
            if getattr(self, f'deviation_{part}') <= stretch:
                found.append(f'deviation_{part} must be more than max_stretch_{part}, {stretch:g}')
            if speed * max(self.state_timeout, self.step_timeout) > stretch:
                found.append(
                    f'max_stretch_{part} is {stretch:g}, less than the arm moves within '
                    'state_timeout or step_timeout at its largest speed'
                )
        return found


def _numbers(values: Any, size: int) -> bool:
    """Return whether these are so many finite numbers."""
    return (
        isinstance(values, (tuple, list))
        and len(values) == size
        and all(
            isinstance(each, (int, float)) and not isinstance(each, bool) and math.isfinite(each)
            for each in values
        )
    )
