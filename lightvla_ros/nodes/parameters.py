"""Parameter tables: each row declares, documents and validates one parameter.

rclpy accepts a misspelt key in a YAML file without a warning (a robot once ran on defaults because
of this: fusioncore#134), so a table refuses every unknown override. The documentation's tables
are generated from the same rows (``lightvla reference``).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml
from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.exceptions import (
    InvalidParameterTypeException,
    InvalidParameterValueException,
    ParameterImmutableException,
)
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from lightvla_ros.errors import LightVLAError, one_line, quoted
from lightvla_ros.nodes.qos_overrides import PREFIX, faulty_override

# Declared by rclpy itself or by its clock and QoS helpers.
_FOREIGN = ('use_sim_time', 'start_type_description_service', PREFIX)


class ParameterError(LightVLAError):
    """A node's parameters are wrong. One line says which one and what would be right."""


@dataclass(frozen=True)
class Parameter:
    """One row of a table.

    :param name: Lower-case name, as in the YAML file.
    :param default: Its type is the parameter's type: bool, int, float, str, or a
        list of str or float that is not empty.
    :param description: What it does, with the unit.
    :param minimum: Smallest allowed number.
    :param maximum: Largest allowed number.
    :param choices: The allowed strings.
    :param check: Says in one line why a value is refused, or returns None.
    :param read_only: Whether it is fixed once the node has started.
    """

    name: str
    default: Any
    description: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] | None = None
    read_only: bool = True
    check: Callable[[Any], str | None] | None = None

    @property
    def range(self) -> str:
        """The allowed values in words; empty when any will do."""
        if self.choices:
            return ', '.join(f'`{choice}`' if choice else 'empty' for choice in self.choices)
        if self.minimum is None and self.maximum is None:
            return ''
        if self.maximum is None:
            return f'>= {self.minimum:g}'
        if self.minimum is None:
            return f'<= {self.maximum:g}'
        return f'{self.minimum:g} to {self.maximum:g}'

    def fault(self, value: Any) -> str | None:
        """Say in one line why a value of the right type is refused; None if it is fine."""
        if self.choices and value not in self.choices:
            return f'{self.name} is {quoted(str(value))}; choose {self.range}'
        if isinstance(self.default, (int, float)) and not isinstance(self.default, bool):
            low = -math.inf if self.minimum is None else self.minimum
            high = math.inf if self.maximum is None else self.maximum
            if not low <= value <= high:  # also refuses NaN
                return f'{self.name} is {value!r}; allowed is {self.range or "a number"}'
        return self.check(value) if self.check else None

    def descriptor(self) -> ParameterDescriptor:
        """Describe it to ``ros2 param describe``."""
        descriptor = ParameterDescriptor(
            name=self.name,
            description=self.description,
            additional_constraints=self.range,
            read_only=self.read_only,
        )
        if self.minimum is not None or self.maximum is not None:
            if isinstance(self.default, float):
                descriptor.floating_point_range = [
                    FloatingPointRange(
                        from_value=-math.inf if self.minimum is None else float(self.minimum),
                        to_value=math.inf if self.maximum is None else float(self.maximum),
                    )
                ]
            else:
                descriptor.integer_range = [
                    IntegerRange(
                        from_value=-(2**63) if self.minimum is None else int(self.minimum),
                        to_value=2**63 - 1 if self.maximum is None else int(self.maximum),
                    )
                ]
        return descriptor


class ParameterTable:
    """The parameters of one node."""

    def __init__(self, rows: Iterable[Parameter]) -> None:
        self.rows = tuple(rows)
        self._by_name = {row.name: row for row in self.rows}

    def declare(
        self,
        node: Node,
        on_change: Callable[[SimpleNamespace], None] | None = None,
        check: Callable[[SimpleNamespace], str | None] | None = None,
        arguments: Sequence[str] | None = None,
    ) -> SimpleNamespace:
        """Declare every row on a node and return the values as attributes, kept up to date.

        :param on_change: Called with the new values after a change at run time was accepted.
        :param check: Says why a whole set of values is refused (one line), or returns None.
        :param arguments: ROS arguments of the process; by default those of its command line.
        :raises ParameterError: On an unknown key, a wrong type, or a value out of range. The node
            is destroyed then.
        """
        try:
            values = self._declared(node, sys.argv if arguments is None else arguments)
            fault = check(values) if check else None
            if fault:
                raise ParameterError(fault)
        except ParameterError:
            # else whenever garbage is collected: while other nodes spin, or after its context
            Node.destroy_node(node)
            raise

        def validate(parameters: list[RosParameter]) -> SetParametersResult:
            try:
                fault = refusal(parameters)
            except Exception as error:  # an exception here would end rclpy's spin
                fault = f'cannot check the new values: {one_line(error)}'
            return SetParametersResult(successful=fault is None, reason=fault or '')

        def refusal(parameters: list[RosParameter]) -> str | None:
            proposed = SimpleNamespace(**vars(values))
            for parameter in parameters:
                row = self._by_name.get(parameter.name)
                if row is not None:
                    fault = row.fault(parameter.value)
                    if fault:
                        return fault
                    setattr(proposed, parameter.name, parameter.value)
            return check(proposed) if check else None

        def apply(parameters: list[RosParameter]) -> None:
            own = [parameter for parameter in parameters if parameter.name in self._by_name]
            for parameter in own:
                setattr(values, parameter.name, parameter.value)
            if own and on_change:
                on_change(values)

        node.add_on_set_parameters_callback(validate)
        node.add_post_set_parameters_callback(apply)
        return values

    def _declared(self, node: Node, arguments: Sequence[str]) -> SimpleNamespace:
        _check_params_files(node, arguments)
        # Private, but the only place where rclpy keeps overrides that were not declared.
        unknown = [
            name
            for name in node._parameter_overrides
            if name not in self._by_name and not name.startswith(_FOREIGN)
        ]
        if unknown:
            raise ParameterError(
                f'unknown parameter {", ".join(sorted(unknown))}; '
                f'{node.get_name()} knows {", ".join(sorted(self._by_name))}'
            )
        fault = faulty_override(node._parameter_overrides)
        if fault:
            raise ParameterError(fault)
        values = SimpleNamespace()
        for row in self.rows:
            try:
                value = node.declare_parameter(row.name, row.default, row.descriptor()).value
            except InvalidParameterTypeException as error:
                raise ParameterError(
                    f'{row.name} must be a {type(row.default).__name__}: {error}'
                ) from None
            except (InvalidParameterValueException, ParameterImmutableException) as error:
                raise ParameterError(
                    f'{row.name}: {error}; allowed is {row.range or "any value"}'
                ) from None
            fault = row.fault(value)
            if fault:
                raise ParameterError(fault)
            setattr(values, row.name, value)
        return values

    def markdown(self) -> str:
        """Return the table for the documentation, in Markdown."""
        lines = [
            '| parameter | default | allowed | at run time | what it does |',
            '|---|---|---|---|---|',
        ]
        for row in self.rows:
            default = f'`{row.default!r}`'.replace("'", '"')
            when = 'fixed' if row.read_only else 'changeable'
            lines.append(f'| `{row.name}` | {default} | {row.range} | {when} | {row.description} |')
        return '\n'.join(lines) + '\n'


def _check_params_files(node: Node, arguments: Sequence[str]) -> None:
    """Refuse a parameter file in which no section is for this node.

    rclpy ignores such a file without a warning, and the node would run on its defaults.
    """
    files = [
        value
        for flag, value in zip(arguments, arguments[1:], strict=False)
        if flag == '--params-file'
    ]
    name = node.get_fully_qualified_name()
    for file in files:
        content = yaml.safe_load(Path(file).read_text())
        sections = list(_sections('', content))
        if not any(_matches(section, name) for section in sections):
            raise ParameterError(
                f'{file}: no section is for {name}, only for {", ".join(sections) or "nothing"}'
            )


def _sections(prefix: str, content: Any) -> Iterable[str]:
    if not isinstance(content, dict):
        return
    for key, value in content.items():
        if key == 'ros__parameters':
            yield prefix
        else:
            yield from _sections(f'{prefix}/{str(key).lstrip("/")}', value)


def _matches(section: str, name: str) -> bool:
    """Return whether a section's key, with ROS's wildcards, matches a node's full name."""
    # fnmatch's * matches slashes like ROS's **, unlike ROS's *: this may match too much, not less
    pattern = section.replace('/**/', '*/').replace('**', '*')
    return fnmatchcase(name, pattern)
