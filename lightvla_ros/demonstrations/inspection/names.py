"""What names a recording has, so that its data YAML can be written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lightvla_ros.demonstrations.lerobot import is_lerobot, read_info
from lightvla_ros.demonstrations.own_hdf5 import datasets_of
from lightvla_ros.demonstrations.reading_process import stream
from lightvla_ros.demonstrations.rosbag import bags_in, topics_of


def names_in(path: Path) -> tuple[str, list[str]] | None:
    """List the names of a recording that needs a data YAML.

    :returns: Its format, and lines; None for LIBERO's files, and where there is nothing known.
    :raises DemonstrationError: When it is damaged.
    """
    if is_lerobot(path):
        return 'lerobot', list(_of_lerobot(path))
    bags = bags_in(path) if path.is_dir() else [path] * (path.suffix in ('.mcap', '.db3'))
    if bags:
        return 'rosbag', [f'{len(bags)} bags; the first: {bags[0]}', *stream(topics_of, bags[0])]
    files = sorted(path.rglob('*.hdf5')) if path.is_dir() else [path] * path.is_file()
    lines = list(stream(datasets_of, files[0])) if files else []
    return ('hdf5', [f'{len(files)} files; the first: {files[0]}', *lines]) if lines else None


def _of_lerobot(path: Path) -> Iterator[str]:
    info = read_info(path)
    yield (
        f'LeRobot {info["codebase_version"]}, {info.get("total_episodes")} episodes, '
        f'{info.get("total_frames")} rows at {info["fps"]} per second'
    )
    for name, each in info['features'].items():
        names = each.get('names')
        shown = '' if each['dtype'] in ('video', 'image') or not names else f' {names}'
        yield f'{name}: {each["dtype"]} {each.get("shape")}{shown}'
