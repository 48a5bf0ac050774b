"""Drawing with matplotlib; a bare ``Figure`` writes files and needs no display."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightvla_ros.files import replace_whole

CAMERA_COLOURS = ('#2a7ab9', '#d9822b', '#7a5fa8')
ALL_COLOUR = '#333333'


def save(figure: Figure, path: Path, dpi: int = 130) -> Path:
    """Write a figure as a PNG."""
    with replace_whole(path) as part:
        figure.savefig(part, dpi=dpi, facecolor='white')
    return path


def words(name: str) -> str:
    """Turn a name into words: ``third_person`` -> ``third person``."""
    return name.replace('_', ' ')


def without_frame(axes: Axes) -> None:
    """Leave the axes' upper and right lines out."""
    axes.spines[['top', 'right']].set_visible(False)
