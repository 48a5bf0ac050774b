"""The data YAML: what a recording's own names mean in the contract, with units and senses.

``docs/how-to/own-data.md`` describes the file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lightvla_ros.contract.libero import LIBERO
from lightvla_ros.contract.manifest import EXECUTIONS
from lightvla_ros.contract.robot import SCALE_TOLERANCE, Robot, read_robot, robot_document
from lightvla_ros.errors import ConfigError, DemonstrationError
from lightvla_ros.typed_yaml import build, read_yaml

FORMATS = ('lerobot', 'hdf5', 'rosbag')
ORDERS = ('before', 'after')
KINDS = ('delta', 'pose', 'next_pose')
FRAMES = ('base', 'tool')
LENGTHS = {'m': 1.0, 'cm': 1e-2, 'mm': 1e-3}
ANGLES = {'rad': 1.0, 'deg': math.pi / 180}
ROTATIONS = {'axis_angle': 3, 'euler_xyz': 3, 'quaternion_xyzw': 4, 'quaternion_wxyz': 4}
# fingers: two joints that both grow as the hand opens; robosuite: the second one is negative
GRIPPERS = {'width': 1, 'finger': 1, 'fingers': 2, 'robosuite': 2}


@dataclass(frozen=True)
class CameraSource:
    """Where a camera's pictures are.

    :param name: The recording's own name: a feature, a dataset or a topic.
    :param rotate: Degrees, counter-clockwise, that turn the recorded picture upright.
    :param bottom_up: Whether the recorded picture's first row is the lowest (robosuite's opengl).
    """

    name: str
    rotate: int = 0
    bottom_up: bool = False


@dataclass(frozen=True)
class Numbers:
    """Where some numbers are, and what they mean.

    :param name: The recording's own name: a feature, a dataset or a topic.
    :param at: Their places or labels in it, in the contract's order; empty for all.
    :param unit: m, cm, mm, rad, deg; with /s for a speed; or metres or radians per number.
    :param form: Of a rotation or a gripper; see ``ROTATIONS`` and ``GRIPPERS``.
    """

    name: str
    at: tuple[int | str, ...] = ()
    unit: float | str = 1.0
    form: str = ''


@dataclass(frozen=True)
class StateSource:
    """The measured state: end effector in the base frame, and the hand.

    :param gripper: None where the contract's state has no ``gripper_qpos``.
    """

    position: Numbers
    rotation: Numbers
    gripper: Numbers | None = None


@dataclass(frozen=True)
class GripperCommand:
    """Where the commanded gripper is.

    :param open: Its number for an open hand; ``closed`` likewise. What is nearer counts.
    """

    name: str
    open: float
    closed: float
    at: tuple[int | str, ...] = ()


@dataclass(frozen=True)
class ActionSource:
    """The commands.

    :param kind: ``delta``: a step from the measured pose; ``pose``: a target pose; ``next_pose``:
        there are no commands, a step is the way to the pose of the next row.
    :param frame: Of a delta: ``base`` or ``tool``.
    :param translation: Not given for ``next_pose``; ``rotation`` likewise.
    """

    kind: str
    gripper: GripperCommand
    translation: Numbers | None = None
    rotation: Numbers | None = None
    frame: str = 'base'


@dataclass(frozen=True)
class HDF5Layout:
    """Names in an HDF5 file.

    :param episodes: Group whose groups are the episodes; all other names are inside of those.
    :param instruction: Attribute of an episode with its instruction.
    """

    episodes: str = 'data'
    instruction: str = ''


@dataclass(frozen=True)
class BagLayout:
    """Topics and tolerances of a bag.

    :param instruction: Topic of type std_msgs/String; its first message counts.
    :param max_camera_skew: Largest distance between the stamps of the cameras' images [s], and
        ``max_state_skew`` between a state's and the oldest image's: as the node's parameters.
    :param max_command_gap: Longest time without a new command [s], where a command is a delta.
    """

    instruction: str = ''
    max_camera_skew: float = 0.03
    max_state_skew: float = 0.1
    max_command_gap: float = 0.25


@dataclass(frozen=True)
class Mapping:
    """A data YAML.

    :param robot: The robot's contract; None: LIBERO's, with this rate and execution.
    :param rate: Control rate of the recording and of the policy [Hz].
    :param execution: What a step is to the arm; see ``contract.Action``.
    :param order: Whether a row's observation was made ``before`` or ``after`` the row's action.
    :param size: Height and width [px] to which upright pictures are shrunk when they are read, as
        the policy would; empty keeps them as they are.
    :param instruction: Instruction of all episodes, where the recording has none.
    :param drop_noops: Whether steps that do nothing are left out before chunks are cut.
    """

    format: str
    rate: float
    execution: str
    cameras: dict[str, CameraSource]
    state: StateSource
    action: ActionSource
    order: str = ''
    size: tuple[int, ...] = ()
    instruction: str = ''
    drop_noops: bool = False
    hdf5: HDF5Layout = field(default_factory=HDF5Layout)
    rosbag: BagLayout = field(default_factory=BagLayout)
    robot: Robot | None = None

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise ConfigError('; '.join(problems))

    @property
    def contract(self) -> Robot:
        """The contract of the robot that was recorded."""
        if self.robot is not None:
            return self.robot
        steps = replace(LIBERO.action, execution=self.execution)
        return replace(LIBERO, control_period=1 / self.rate, action=steps, words=())

    @property
    def state_names(self) -> tuple[str, ...]:
        """The recording's names for the state, each once."""
        state = self.state
        return tuple(dict.fromkeys(each.name for each in vars(state).values() if each))

    @property
    def action_names(self) -> tuple[str, ...]:
        """The recording's names for the commands, each once."""
        action = self.action
        parts = (action.translation, action.rotation, action.gripper)
        return tuple(dict.fromkeys(each.name for each in parts if each is not None))

    def _problems(self) -> Iterator[str]:
        action = self.action
        for name, value, allowed in (
            ('format', self.format, FORMATS),
            ('order', self.order, ORDERS),
            ('execution', self.execution, EXECUTIONS),
            ('action.kind', action.kind, KINDS),
            ('action.frame', action.frame, FRAMES),
        ):
            if value not in allowed:
                yield f'{name} {value!r} is not one of {", ".join(allowed)}'
        if not (math.isfinite(self.rate) and self.rate > 0):
            yield f'rate {self.rate} must be a positive number'
        yield from self._misfits()
        for name, camera in self.cameras.items():
            if camera.rotate not in (0, 90, 180, 270):
                yield f'cameras.{name}.rotate {camera.rotate} is not 0, 90, 180 or 270'
        if len(self.size) not in (0, 2) or any(side < 1 for side in self.size):
            yield f'size {list(self.size)} must be height and width in pixels'
        if self.format == 'rosbag' and self.order == 'after':
            yield 'order: in a bag the stamps decide, and rows are made observation first: before'
        yield from _problems_of('state.position', self.state.position, LENGTHS, {'': 3})
        yield from _problems_of('state.rotation', self.state.rotation, ANGLES, ROTATIONS)
        if self.state.gripper is not None:
            yield from _problems_of('state.gripper', self.state.gripper, LENGTHS, GRIPPERS)
        if len(action.gripper.at) > 1:
            yield 'action.gripper.at: one place is needed'
        if not math.isfinite(action.gripper.open) or not math.isfinite(action.gripper.closed):
            yield 'action.gripper: open and closed must be finite'
        elif action.gripper.open == action.gripper.closed:
            yield 'action.gripper: open and closed are equal'
        parts = (action.translation, action.rotation)
        if action.kind == 'next_pose':
            if parts != (None, None):
                yield 'action: translation and rotation come from the state where kind is next_pose'
            if self.execution == 'spring':
                yield 'execution: a step to the next pose is a displacement, not a spring'
            if self.order == 'after':
                yield 'order: before, where actions come from successive poses'
        elif None in parts:
            yield f'action: translation and rotation are needed for kind {action.kind}'
        else:
            forms = dict(ROTATIONS)
            lengths, angles = LENGTHS, ANGLES
            if action.kind == 'delta':
                lengths, angles = _with_speeds(LENGTHS), _with_speeds(ANGLES)
                forms = {form: n for form, n in ROTATIONS.items() if n == 3}
            yield from _problems_of('action.translation', action.translation, lengths, {'': 3})
            yield from _problems_of('action.rotation', action.rotation, angles, forms)
        if action.kind != 'delta' and action.frame != 'base':
            yield 'action.frame: only a delta has another frame than the base'

    def _misfits(self) -> Iterator[str]:
        """Compare with the robot's contract."""
        robot = LIBERO if self.robot is None else self.robot
        if list(self.cameras) != list(robot.cameras):
            yield (
                f'cameras: {", ".join(self.cameras) or "none"}; exactly '
                f'{" and ".join(robot.cameras)} are needed, in this order (contract of '
                f'{robot.name})'
            )
        if ('gripper_qpos' in robot.proprio) != (self.state.gripper is not None):
            yield (
                f"state.gripper: must be given where {robot.name}'s contract has gripper_qpos in "
                f'its proprio, and nowhere else; it has {", ".join(robot.layout) or "nothing"}'
            )
        if self.robot is None:
            return
        if abs(self.rate * robot.control_period - 1) > SCALE_TOLERANCE:
            yield (
                f'rate {self.rate:g} Hz: the contract of {robot.name} has a control_period of '
                f'{robot.control_period:g} s, {1 / robot.control_period:g} Hz'
            )
        if self.execution != robot.action.execution:
            yield (
                f'execution {self.execution}: the contract of {robot.name} has '
                f'{robot.action.execution}'
            )

    def scale(self, numbers: Numbers) -> float:
        """Return the metres or radians of one, in one step for a speed."""
        unit = numbers.unit
        if not isinstance(unit, str):
            return float(unit)
        name, _, per_second = unit.partition('/')
        factor = (LENGTHS | ANGLES)[name]
        return factor / self.rate if per_second else factor


def read_mapping(path: str | Path) -> Mapping:
    """Read a data YAML.

    :raises ConfigError: When a field is unknown, missing or invalid; it names file and field.
    """
    try:
        document = _written_out(read_yaml(Path(path)))
        if isinstance(document.get('robot'), str):
            named = Path(path).parent / document['robot']
            _take_robot(document, read_robot(named))
        return build(Mapping, document)
    except ConfigError as error:
        text = str(error)
        raise ConfigError(text if text.startswith(str(path)) else f'{path}: {text}') from None


def refuse_missing(place: str, name: str, of: str, there_are: Any) -> DemonstrationError:
    """Return the error for a name that a recording does not have."""
    names = ', '.join(sorted(map(str, there_are)))
    return DemonstrationError(
        f'{place}: has no {of} {name!r}, which the mapping names; there are: {names or "none"}'
    )


def _written_out(document: Any) -> Any:
    """Write out what may be short: ``wrist: topic`` for ``wrist: {name: topic}``."""
    if not isinstance(document, dict):
        raise ConfigError('does not hold a mapping of names to values')
    document = dict(document)
    if document.get('format') != 'hdf5':  # what these two formats mean by a row
        document.setdefault('order', 'before')
    for part in ('cameras', 'state'):
        if isinstance(document.get(part), dict):
            document[part] = {
                name: {'name': each} if isinstance(each, str) else each
                for name, each in document[part].items()
            }
    return document


def _take_robot(document: dict[str, Any], robot: Robot) -> None:
    """Put a robot's contract into a data YAML's content, and what follows from it."""
    document['robot'] = robot_document(robot)
    document.setdefault('rate', 1 / robot.control_period)
    document.setdefault('execution', robot.action.execution)


def _with_speeds(units: dict[str, float]) -> dict[str, float]:
    return units | {f'{name}/s': factor for name, factor in units.items()}


def _problems_of(
    place: str, numbers: Numbers, units: dict[str, float], forms: dict[str, int]
) -> Iterator[str]:
    form = numbers.form
    if form not in forms:
        yield f'{place}.form {form!r} is not one of {", ".join(forms)}'
    elif numbers.at and len(numbers.at) != forms[form]:
        yield f'{place}.at: {forms[form]} places are needed, not {len(numbers.at)}'
    unit = numbers.unit
    if isinstance(unit, str) and unit not in units:
        yield f'{place}.unit {unit!r} is not a number, nor one of {", ".join(units)}'
    if not isinstance(unit, str) and not (math.isfinite(unit) and unit != 0):
        yield f'{place}.unit {unit!r} must be a number other than 0'
    if forms.get(form) == 4 and unit not in (1.0, 'rad'):
        yield f'{place}.unit: a quaternion has none'
