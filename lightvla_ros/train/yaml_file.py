"""Reads a YAML file in which every key occurs once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
