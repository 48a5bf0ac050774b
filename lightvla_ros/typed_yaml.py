"""Reads a YAML file in which every key occurs once, and builds dataclasses from its content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from lightvla_ros.errors import ConfigError, one_line


def read_yaml(path: Path) -> Any:
    """Return a file's content.

    :raises ConfigError: When the file cannot be read, is not UTF-8 or not YAML, or gives a key
        twice (YAML would silently use the last value).
    """
    try:
        return yaml.load(Path(path).read_text(encoding='utf-8'), _OnceLoader)
    except OSError as error:
        raise ConfigError(f'{path}: cannot be read: {error.strerror}') from None
    except UnicodeDecodeError as error:
        raise ConfigError(f'{path}: is not UTF-8 text ({error}); save it as UTF-8') from None
    except ConfigError as error:
        raise ConfigError(f'{path}: {error}') from None
    except yaml.YAMLError as error:
        raise ConfigError(f'{path}: not YAML: {one_line(error)}') from None


def build(kind: type, document: Any, where: str = '', renamed: Mapping[str, str] = {}) -> Any:
    """Build a dataclass, with nested ones, from a mapping.

    :param where: Path of the dataclass's own field, with a dot at its end.
    :param renamed: Names of the file for fields that have others, for the list in an error.
    :raises ConfigError: When a field is unknown, missing or of another type; it names the field.
    """
    if not isinstance(document, dict):
        named = f'{where.rstrip(".")}: ' if where else ''
        raise ConfigError(f'{named}a mapping is needed, not {document!r}')
    hints = get_type_hints(kind)
    for name in document:
        if name not in hints:
            names = ', '.join(sorted(renamed.get(each, each) for each in hints))
            raise ConfigError(f'{where}{name} is unknown; there are: {names}')
    values = {
        name: _value(hints[name], value, f'{where}{name}', renamed)
        for name, value in document.items()
    }
    try:
        return kind(**values)
    except TypeError:
        missing = [
            each.name
            for each in fields(kind)
            if each.name not in values and each.default is each.default_factory  # both are MISSING
        ]
        raise ConfigError(f'{where}{missing[0]} is missing') from None


def _value(hint: Any, value: Any, where: str, renamed: Mapping[str, str]) -> Any:
    parts = [each for each in getattr(hint, '__args__', ()) if each is not type(None)]
    optional = type(None) in getattr(hint, '__args__', ())
    if optional:
        if value is None:
            return None
        hint = parts[0]
    if is_dataclass(hint):
        return build(hint, value, f'{where}.', renamed)
    if getattr(hint, '__origin__', None) is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f'{where}: a list is needed, not {value!r}')
        return tuple(
            _value(parts[0], each, f'{where}[{i}]', renamed) for i, each in enumerate(value)
        )
    if getattr(hint, '__origin__', None) is dict:
        if is_dataclass(parts[-1]) and isinstance(value, dict):
            return {
                name: build(parts[-1], each, f'{where}.{name}.') for name, each in value.items()
            }
        hint = dict
    return _plain_value(hint, value, where)


def _plain_value(kind: type, value: Any, where: str) -> Any:
    if kind is float and isinstance(value, str):
        # YAML 1.1 reads 5e-4 as text; only 5.0e-4 is a number
        try:
            value = float(value)
        except ValueError:
            raise ConfigError(f'{where}: {value!r} is not a number') from None
    floats = kind is float or float in getattr(kind, '__args__', ())
    if floats and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f'{where}: {value!r} is not of type {getattr(kind, "__name__", kind)}')
    return value


class _OnceLoader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            name, line = (key.tag, str(key.value)), key.start_mark.line + 1
            if name in lines:
                raise ConfigError(
                    f'{key.value} is given twice, in line {lines[name]} and in line {line}; remove '
                    'one of them'
                )
            lines[name] = line
        return node
