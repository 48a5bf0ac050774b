"""A robot's contract: what its recordings, its policy's training and the nodes agree on.

It is a YAML file; LIBERO's Panda has ``config/robots/libero.yaml``. Training writes what a policy
needs of it into the policy's manifest, and ``lightvla new-policy`` makes a launch file of the rest.
``docs/how-to/own-robot.md`` describes the fields.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lightvla_ros.contract.manifest import (
    EXECUTIONS,
    POINTING_DOWN,
    PROPRIO_LAYOUT,
    PROPRIO_SIZES,
    PROPRIO_UNITS,
)
from lightvla_ros.errors import ConfigError
from lightvla_ros.typed_yaml import build, read_yaml

MOUNTS = ('scene', 'wrist')
FITS = ('stretch', 'crop', 'pad')
NAME = re.compile(r'[a-z][a-z0-9_]{0,31}')  # of a camera, as in the manifest
MOST_CAMERAS, MOST_STEPS = 8, 64  # the bounds of the manifest and of the messages
SCALE_TOLERANCE = 0.01  # of numbers that two files both give


@dataclass(frozen=True)
class RobotCamera:
    """A camera of a robot.

    :param mount: ``scene`` or ``wrist``.
    :param size: Height and width [px] of the pictures that its driver publishes.
    :param topic: Where they are published; empty for ``NAME/image``.
    :param rotate: 0 or 180 degrees, by which the policy turns them.
    :param mirror: Whether the policy mirrors them left to right after that.
    :param fit: How they become the policy's square: they are distorted (``stretch``), cut at their
        sides (``crop``) or padded with black (``pad``).
    """

    mount: str
    size: tuple[int, ...]
    topic: str = ''
    rotate: int = 0
    mirror: bool = False
    fit: str = 'stretch'

    @property
    def aspect(self) -> float:
        """Width over height of what the policy sees."""
        return self.size[1] / self.size[0] if self.fit == 'stretch' else 1.0


@dataclass(frozen=True)
class StatePart:
    """A part of the state vector.

    :param unit: That of the robot's messages: ``m`` or ``rad``.
    :param low: The smallest numbers that are expected; ``high``: the largest. They are used until
        data say more; empty for the workspace's, or for all that is possible.
    """

    unit: str
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True)
class Steps:
    """What the policy's numbers are to the arm.

    :param execution: See ``manifest.Action``.
    :param translation_scale: Metres per unit; ``rotation_scale``: radians per unit.
    :param chunk_length: Steps that the policy predicts at once.
    :param frame: The frame of the steps: ``base``.
    """

    execution: str
    translation_scale: float = 0.05
    rotation_scale: float = 0.5
    chunk_length: int = 8
    frame: str = 'base'


@dataclass(frozen=True)
class Gripper:
    """The hand.

    :param open: The policy's number for an open hand; ``closed`` likewise.
    :param joints: Names of the two finger joints in ``gripper_state``.
    :param reach: Largest distance of a finger from the middle [m].
    """

    open: float = 1.0
    closed: float = 0.0
    joints: tuple[str, ...] = ('panda_finger_joint1', 'panda_finger_joint2')
    reach: float = 0.04


@dataclass(frozen=True)
class RobotFrames:
    """Names of the frames of the arm's base, and of the end effector that steps move."""

    base: str
    ee: str


@dataclass(frozen=True)
class Box:
    """Two corners in the base frame [m]."""

    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class Speed:
    """Largest speed of the end effector: ``translation`` [m/s] and ``rotation`` [rad/s]."""

    translation: float = 0.25
    rotation: float = 0.6


@dataclass(frozen=True)
class RobotTopics:
    """Where the robot publishes its state and takes what a user says."""

    ee_pose: str = 'ee_pose'
    gripper_state: str = 'gripper_state'
    instruction: str = 'instruction'


@dataclass(frozen=True)
class Robot:
    """A robot's contract.

    :param control_period: Seconds per step of the policy.
    :param cameras: By name, in the order in which a model takes them; those at the wrist are last.
    :param proprio: The parts of the state vector, in order; empty for a policy without state.
    :param quaternion_reference: See ``manifest.Proprio``.
    :param speed: Bounds of the executor, as are those of the workspace.
    :param words: Words that a policy from scratch knows beside those of its data.
    :raises ConfigError: When fields are invalid; it names them.
    """

    name: str
    control_period: float
    cameras: dict[str, RobotCamera]
    proprio: dict[str, StatePart]
    action: Steps
    frames: RobotFrames
    workspace: Box
    gripper: Gripper = field(default_factory=Gripper)
    quaternion_reference: tuple[float, ...] = POINTING_DOWN
    speed: Speed = field(default_factory=Speed)
    topics: RobotTopics = field(default_factory=RobotTopics)
    words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise ConfigError('; '.join(problems))

    @property
    def layout(self) -> tuple[str, ...]:
        """Names of the parts of the state vector."""
        return tuple(self.proprio)

    @property
    def state_columns(self) -> list[int]:
        """The places of the policy's state in the whole measured one (``PROPRIO_LAYOUT``)."""
        starts, at = {}, 0
        for part in PROPRIO_LAYOUT:
            starts[part], at = at, at + PROPRIO_SIZES[part]
        return [starts[part] + i for part in self.layout for i in range(PROPRIO_SIZES[part])]

    @property
    def state_range(self) -> tuple[list[float], list[float]]:
        """The smallest and the largest state that is expected, each of the layout's length."""
        possible = {
            'ee_position': (self.workspace.low, self.workspace.high),
            'ee_axis_angle': ((-2 * math.pi,) * 3, (2 * math.pi,) * 3),
            'gripper_qpos': ((0.0, -self.gripper.reach), (self.gripper.reach, 0.0)),
        }
        low = [n for name, part in self.proprio.items() for n in part.low or possible[name][0]]
        high = [n for name, part in self.proprio.items() for n in part.high or possible[name][1]]
        return low, high

    def _problems(self) -> Iterator[str]:
        if not re.fullmatch(r'[A-Za-z0-9._-]{1,64}', self.name):
            yield f'name {self.name!r} must be of letters, digits, dots and dashes, 64 at most'
        if not (math.isfinite(self.control_period) and 0 < self.control_period <= 10):
            yield f'control_period {self.control_period} s must be above 0, and 10 at most'
        yield from self._problems_of_cameras()
        for name, part in self.proprio.items():
            yield from _problems_of_part(name, part)
        if len(self.quaternion_reference) != 4 or not any(self.quaternion_reference):
            yield 'quaternion_reference must be four numbers x y z w, not all 0'
        yield from self._problems_of_action()
        if 'gripper_qpos' in self.proprio and len(set(self.gripper.joints)) != 2:
            yield (
                f'gripper.joints {list(self.gripper.joints)}: the state needs two finger joints; '
                'for a hand with another number leave gripper_qpos out of proprio'
            )
        if not 0 < self.gripper.reach <= 0.2:
            yield f'gripper.reach {self.gripper.reach} m must be above 0, and 0.2 at most'
        for name in ('base', 'ee'):
            if not getattr(self.frames, name):
                yield f'frames.{name} is empty'
        corners = zip(self.workspace.low, self.workspace.high, strict=False)
        sizes = len(self.workspace.low), len(self.workspace.high)
        if sizes != (3, 3) or not all(low < high for low, high in corners):
            yield 'workspace: low and high must be three numbers [m] each, low below high'
        if not (self.speed.translation > 0 and self.speed.rotation > 0):
            yield 'speed: translation and rotation must be positive'

    def _problems_of_cameras(self) -> Iterator[str]:
        if not 1 <= len(self.cameras) <= MOST_CAMERAS:
            yield f'cameras: {len(self.cameras)}; 1 to {MOST_CAMERAS} are needed'
        for name, camera in self.cameras.items():
            place = f'cameras.{name}'
            if not NAME.fullmatch(name):
                yield f'{place}: a name is of a-z, 0-9 and _, begins with a letter, 32 at most'
            if camera.mount not in MOUNTS:
                yield f'{place}.mount {camera.mount!r} is not one of {", ".join(MOUNTS)}'
            if len(camera.size) != 2 or min(camera.size) < 1:
                yield f'{place}.size {list(camera.size)} must be height and width in pixels'
                return
            if camera.rotate not in (0, 180):
                yield (
                    f'{place}.rotate {camera.rotate} is not 0 or 180; let the driver turn '
                    'pictures by 90 degrees (image_rotate, or v4l2)'
                )
            if camera.fit not in FITS:
                yield f'{place}.fit {camera.fit!r} is not one of {", ".join(FITS)}'
        aspects = {name: round(each.aspect, 2) for name, each in self.cameras.items()}
        if len(set(aspects.values())) > 1:
            shown = ', '.join(f'{name} {aspect:g}' for name, aspect in aspects.items())
            yield (
                f'cameras: width / height is {shown}; a model takes all cameras as one batch: let '
                'the drivers publish one shape'
            )
        mounts = [each.mount for each in self.cameras.values()]
        if mounts != sorted(mounts):
            yield 'cameras: those at the wrist must come last, as models take them'

    def _problems_of_action(self) -> Iterator[str]:
        action = self.action
        if action.execution not in EXECUTIONS:
            yield f'action.execution {action.execution!r} is not one of {", ".join(EXECUTIONS)}'
        if action.frame != 'base':
            yield (
                f'action.frame {action.frame!r}: a policy steps in the base frame; steps that were '
                'recorded in the tool frame are turned when they are read (action.frame of the '
                'data YAML)'
            )
        if not 1 <= action.chunk_length <= MOST_STEPS:
            yield f'action.chunk_length {action.chunk_length} is not 1 to {MOST_STEPS}'
        for name in ('translation_scale', 'rotation_scale'):
            scale = getattr(action, name)
            if not (math.isfinite(scale) and scale > 0):
                yield f'action.{name} {scale} must be a positive number'
        numbers = self.gripper.open, self.gripper.closed
        if not all(map(math.isfinite, numbers)) or numbers[0] == numbers[1]:
            yield 'gripper: open and closed must be two different numbers'


def _problems_of_part(name: str, part: StatePart) -> Iterator[str]:
    place = f'proprio.{name}'
    if name not in PROPRIO_SIZES:
        yield f'{place} is unknown; there are: {", ".join(PROPRIO_SIZES)}'
        return
    unit, size = PROPRIO_UNITS[name], PROPRIO_SIZES[name]
    if part.unit != unit:
        yield (
            f"{place}.unit {part.unit!r}: ROS's messages are in {unit} (REP 103), and so is the "
            'state; a recording in another unit is converted by its data YAML'
        )
    if {len(part.low), len(part.high)} not in ({0}, {size}):
        yield f'{place}: low and high must be {size} numbers each, or both left out'
    elif any(low > high for low, high in zip(part.low, part.high, strict=True)):
        yield f'{place}: low is above high'


def read_robot(path: Path | str) -> Robot:
    """Read a contract.

    :raises ConfigError: When a field is unknown, missing or invalid; it names file and field.
    """
    document = read_yaml(Path(path))
    try:
        return robot_from(document)
    except ConfigError as error:
        raise ConfigError(f'{path}: {error}') from None


def robot_from(document: Any) -> Robot:
    """Build a contract from a file's content, in which ``ee_position: m`` may be short.

    :raises ConfigError: As :func:`read_robot`, without the file.
    """
    if not isinstance(document, dict):
        raise ConfigError('does not hold a mapping of names to values')
    document = dict(document)
    if isinstance(document.get('proprio'), dict):
        document['proprio'] = {
            name: {'unit': part} if isinstance(part, str) else part
            for name, part in document['proprio'].items()
        }
    return build(Robot, document)


def robot_document(robot: Robot) -> dict[str, Any]:
    """Return a contract as plain values, the inverse of :func:`robot_from`."""
    return _plain(asdict(robot))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def difference(one: Robot, other: Robot) -> str:
    """Name the fields in which two contracts differ, with what each has."""
    documents = [robot_document(each) for each in (one, other)]
    first, second = documents
    return '; '.join(f'{n} {first[n]} and {second[n]}' for n in first if first[n] != second[n])
