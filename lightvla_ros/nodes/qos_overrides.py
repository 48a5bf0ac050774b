"""Checks QoS overrides in a parameter file.

A key is ``qos_overrides.<topic>.<publisher or subscription>.<history, depth or reliability>``.
rclpy accepts a key that fits no topic without a warning, and raises an unclear error for a value
that it cannot read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from rclpy.node import Node
from rclpy.parameter import Parameter

PREFIX = 'qos_overrides.'
_KEY = re.compile(r'qos_overrides\.(?P<topic>/[^.]+)\.(publisher|subscription)\.(?P<policy>\w+)')
_CHOICES = {
    'history': ('keep_last', 'keep_all', 'system_default'),
    'reliability': ('reliable', 'best_effort', 'system_default', 'best_available'),
}


def faulty_override(overrides: Mapping[str, Parameter]) -> str | None:
    """Return one line that names an override with a wrong form or value; None if all are valid."""
    for name in _ours(overrides):
        match = _KEY.fullmatch(name)
        if match is None or match['policy'] not in (*_CHOICES, 'depth'):
            return (
                f'unknown parameter {name}; the form is qos_overrides.</topic>.<publisher or '
                'subscription>.<history, depth or reliability>'
            )
        fault = _faulty_value(match['policy'], overrides[name].value)
        if fault:
            return f'{name} is {fault}'
    return None


def unused_override(node: Node) -> str | None:
    """Return one line that names overrides without a topic; None if all overrides are used.

    Call it when the node has created all its publishers and subscriptions.
    """
    # Private, but the only place where rclpy keeps overrides that were not declared.
    unused = [name for name in _ours(node._parameter_overrides) if not node.has_parameter(name)]
    if not unused:
        return None
    known = {m['topic'] for m in map(_KEY.fullmatch, node._parameters) if m}
    topics = f'QoS can be set for {", ".join(sorted(known))}' if known else 'no QoS can be set'
    return f'unknown parameter {", ".join(unused)}; {topics}'


def _ours(names: Iterable[str]) -> list[str]:
    """Return the overrides in sorted order, except those of /clock, which rclpy handles."""
    return sorted(n for n in names if n.startswith(PREFIX) and not n.startswith(f'{PREFIX}/clock.'))


def _faulty_value(policy: str, value: Any) -> str | None:
    if policy == 'depth':
        whole = isinstance(value, int) and not isinstance(value, bool)
        return None if whole and value > 0 else f'{value!r}; it must be a whole number above 0'
    choices = _CHOICES[policy]
    return None if value in choices else f'{value!r}; choose {", ".join(choices)}'
