"""A configuration from a YAML file. An error names the field, and what it holds instead."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightvla_ros.errors import ConfigError
from lightvla_ros.train.config import TrainConfig
from lightvla_ros.typed_yaml import build, read_yaml


def read_config(path: Path, changes: Mapping[str, Any] | None = None) -> TrainConfig:
    """Read a YAML file.

    :param changes: Fields to change, with the file's names, nested ones by nested mappings.
    :raises ConfigError: When a field is unknown, missing or invalid; it names file and field.
    """
    document = read_yaml(path)
    try:
        return from_dict(_merged(document, changes) if changes else document)
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
    return build(TrainConfig, document, renamed={'start': 'from'})


def _merged(document: Any, changes: Mapping[str, Any]) -> Any:
    if not isinstance(document, dict):
        return document  # which from_dict refuses
    merged = dict(document)
    for name, value in changes.items():
        nested = isinstance(value, dict) and isinstance(document.get(name), dict)
        merged[name] = _merged(document[name], value) if nested else value
    return merged


def _sources(paths: Any) -> list[dict[str, Any]]:
    if not isinstance(paths, list):
        raise ConfigError('data.paths must be a list')
    return [{'path': each} if isinstance(each, str) else each for each in paths]


def _augment(value: Any) -> Any:
    # YAML reads a bare off as False
    named = {None: True, False: False, 'off': False, 'published': True, True: True}
    if isinstance(value, dict):
        return {'crop': False, 'colour': False, 'things': 0.0} | value
    if value not in named:
        raise ConfigError(f'augment {value!r} is not off, published or a mapping')
    return {'crop': named[value], 'colour': named[value]}
