"""The parameters of the chunk executor, among them every bound of its safety filter."""

from __future__ import annotations

from dataclasses import Field, fields
from types import SimpleNamespace

from lightvla_ros.contract.manifest import EXECUTIONS
from lightvla_ros.errors import ConfigError
from lightvla_ros.nodes.arm_outputs import OUTPUTS
from lightvla_ros.nodes.gripper_client import GRIPPER_PARAMETERS
from lightvla_ros.nodes.parameters import Parameter, ParameterTable
from lightvla_ros.runtime.safety_filter import SPRING_RATE, SafetyFilter
from lightvla_ros.runtime.safety_limits import SafetyLimits

BOX_FORM = 'six numbers separated by commas, boxes separated by semicolons'


def _keep_out_fault(text: str) -> str | None:
    try:
        boxes_from(text)
    except ValueError:
        return f'keep_out is {text!r}; it must be {BOX_FORM}'
    return None


def boxes_from(text: str) -> tuple[tuple[float, ...], ...]:
    """Read keep-out boxes from the parameter's text.

    :raises ValueError: When a part of it is no number.
    """
    boxes = (box for box in text.split(';') if box.strip())
    return tuple(tuple(float(number) for number in box.split(',')) for box in boxes)


def _row(bound: Field) -> Parameter:
    """Return the row of one bound of the safety filter."""
    about = bound.metadata
    meaning = f'{about["meaning"].removesuffix(".")} [{about["unit"]}].'
    if bound.name == 'keep_out':
        meaning = f'{meaning} As text: {BOX_FORM}.'
        return Parameter(bound.name, '', meaning, check=_keep_out_fault)
    if 'size' in about:
        return Parameter(bound.name, list(bound.default), meaning)
    return Parameter(bound.name, bound.default, meaning, about['low'], about['high'])


EXECUTOR_PARAMETERS = ParameterTable(
    [
        Parameter(
            'controller',
            'crisp',
            'What moves the arm: `crisp` (crisp_controllers, a pose on `target_pose`), '
            '`servo_pose` or `servo_twist` (MoveIt Servo).',
            choices=tuple(OUTPUTS),
        ),
        Parameter(
            'execution',
            'spring',
            'What a step means to the arm, as in the manifest of the policy (`action.execution`); '
            'chunks of the other kind are refused. `servo_pose` cannot execute `spring`.',
            choices=EXECUTIONS,
        ),
        Parameter('autostart', True, 'Configure and activate when the node starts.'),
        Parameter('base_frame', 'panda_link0', 'Frame of `ee_pose`, of chunks and of commands.'),
        Parameter('ee_frame', 'panda_hand_tcp', 'Frame that the chunks move.'),
        Parameter(
            'rate',
            100.0,
            'Commands per second [Hz]. With `use_sim_time` there is one for each measured pose '
            'instead.',
            50.0,
            200.0,
        ),
        Parameter(
            'speed',
            0.5,
            'Speed of the execution relative to that of the chunks. A spring is also less far '
            'ahead: its lead is multiplied by this.',
            0.05,
            1.0,
        ),
        Parameter(
            'blended',
            0,
            'Number of steps that are a mean of the old and the new chunk after a change.',
            0,
            8,
        ),
        Parameter(
            'twist_gain',
            SPRING_RATE,
            'Speed per distance between commanded and measured pose in `servo_twist` [1/s]; 6.1 is '
            "that of LIBERO's controller, measured in simulation.",
            0.5,
            20.0,
        ),
        *GRIPPER_PARAMETERS,
        *(_row(bound) for bound in fields(SafetyLimits)),
    ]
)


def limits_from(values: SimpleNamespace) -> SafetyLimits:
    """Return the bounds of the safety filter.

    :raises ConfigError: When they contradict each other; it names them.
    """
    given = {bound.name: getattr(values, bound.name) for bound in fields(SafetyLimits)}
    given['keep_out'] = boxes_from(given['keep_out'])
    for name in ('box_min', 'box_max', 'approach_axis'):
        given[name] = tuple(float(number) for number in given[name])
    return SafetyLimits(**given)


def misfit(values: SimpleNamespace) -> str | None:
    """Say in one line why a set of values is refused; None if it is fine."""
    if values.controller == 'servo_pose' and values.execution == 'spring':
        return (
            'controller servo_pose cannot execute spring: Servo would go all the way to a '
            'set-point that only pulls at the arm; choose crisp or servo_twist'
        )
    try:
        SafetyFilter(limits_from(values), values.execution)
    except ConfigError as error:
        return str(error)
    return None
