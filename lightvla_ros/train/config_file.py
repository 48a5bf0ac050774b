"""A configuration from a YAML file. An error names the field, and what it holds instead."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from lightvla_ros.errors import ConfigError
from lightvla_ros.train.config import TrainConfig
from lightvla_ros.train.yaml_file import read_yaml


def read_config(path: Path) -> TrainConfig:
    """Read a YAML file.

    :raises ConfigError: When a field is unknown, missing or invalid; it names file and field.
    """
    document = read_yaml(path)
    try:
        return from_dict(document)
    except ConfigError as error:
        raise ConfigError(f'{path}: {error}') from None


def from_dict(document: Any) -> TrainConfig:
    """Build a configuration from a file's content.

    :raises ConfigError: See :func:`read_config`.
    """
    if not isinstance(document, dict):
        raise ConfigError('does not hold a mapping of names to values')
    document = dict(document)
    if isinstance(document.get('model'), dict):
        model = dict(document['model'])
        if 'start' in model:
            raise ConfigError("model.start is unknown; the name is 'from'")
        if 'from' in model:
            model['start'] = model.pop('from')
        document['model'] = model
    if isinstance(document.get('data'), dict):
        document['data'] = document['data'] | {'paths': _sources(document['data'].get('paths'))}
    document['augment'] = _augment(document.get('augment'))
    return _build(TrainConfig, document, '')


def _sources(paths: Any) -> list[dict[str, Any]]:
    if not isinstance(paths, list):
        raise ConfigError('data.paths must be a list')
    return [{'path': each} if isinstance(each, str) else each for each in paths]


def _augment(value: Any) -> Any:
    # YAML reads a bare off as False
    named = {None: True, False: False, 'off': False, 'published': True, True: True}
    if isinstance(value, dict):
        return {'crop': False, 'colour': False} | value
    if value not in named:
        raise ConfigError(f'augment {value!r} is not off, published or a mapping')
    return {'crop': named[value], 'colour': named[value]}


def _build(kind: type, document: Any, where: str) -> Any:
    """Build a dataclass, with nested ones, from a mapping; ``where`` is the path of its field."""
    if not isinstance(document, dict):
        raise ConfigError(f'{where.rstrip(".")}: a mapping is needed, not {document!r}')
    hints = get_type_hints(kind)
    for name in document:
        if name not in hints:
            names = ', '.join(sorted({'start': 'from'}.get(each, each) for each in hints))
            raise ConfigError(f'{where}{name} is unknown; there are: {names}')
    values = {
        name: _value(hints[name], value, f'{where}{name}') for name, value in document.items()
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


def _value(hint: Any, value: Any, where: str) -> Any:
    parts = [each for each in getattr(hint, '__args__', ()) if each is not type(None)]
    optional = type(None) in getattr(hint, '__args__', ())
    if optional:
        if value is None:
            return None
        hint = parts[0]
    if is_dataclass(hint):
        return _build(hint, value, f'{where}.')
    if getattr(hint, '__origin__', None) is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f'{where}: a list is needed, not {value!r}')
        return tuple(_value(parts[0], each, f'{where}[{i}]') for i, each in enumerate(value))
    if getattr(hint, '__origin__', None) is dict:
        hint = dict
    return _plain_value(hint, value, where)


def _plain_value(kind: type, value: Any, where: str) -> Any:
    if kind is float and isinstance(value, str):
        # YAML 1.1 reads 5e-4 as text; only 5.0e-4 is a number
        try:
            value = float(value)
        except ValueError:
            raise ConfigError(f'{where}: {value!r} is not a number') from None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f'{where}: {value!r} is not of type {kind.__name__}')
    return value
