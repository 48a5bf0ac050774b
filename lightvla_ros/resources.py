"""Files that are installed beside the package: configuration and the bundled policies."""

from __future__ import annotations

from pathlib import Path

BUNDLED_POLICY = 'models/libero_tiny'


def resource(relative: str) -> Path:
    """Find a file of the source tree (editable install) or of the package's share folder (colcon).

    :raises FileNotFoundError: When it is in neither.
    """
    package = Path(__file__).resolve().parent
    if (package.parent / relative).exists():
        return package.parent / relative
    # colcon: <prefix>/lib/pythonX.Y/site-packages/lightvla_ros beside <prefix>/share/lightvla_ros
    for prefix in package.parents:
        if (prefix / 'share' / 'lightvla_ros' / relative).exists():
            return prefix / 'share' / 'lightvla_ros' / relative
    raise FileNotFoundError(f'{relative}: neither in {package.parent} nor in the share folder')
