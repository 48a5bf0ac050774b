"""Checks of the fields of a configuration; each returns a line for each wrong one."""

from __future__ import annotations

import math
from typing import Any


def not_positive(config: Any, names: tuple[str, ...]) -> list[str]:
    """Check that numbers are above 0."""
    return [
        f'{name} {getattr(config, name)!r} must be a positive number'
        for name in names
        if not (math.isfinite(getattr(config, name)) and getattr(config, name) > 0)
    ]


def negative(config: Any, names: tuple[str, ...]) -> list[str]:
    """Check that numbers are not below 0."""
    return [
        f'{name} {getattr(config, name)!r} must not be negative'
        for name in names
        if not (math.isfinite(getattr(config, name)) and getattr(config, name) >= 0)
    ]


def not_one_of(config: Any, allowed: dict[str, tuple[str, ...]]) -> list[str]:
    """Check that texts are among the allowed ones."""
    return [
        f'{name} {getattr(config, name)!r} is not one of {", ".join(values)}'
        for name, values in allowed.items()
        if getattr(config, name) not in values
    ]
