"""Files that are installed beside the package: configuration and the bundled policies."""

from __future__ import annotations

from pathlib import Path


def resource(relative: str) -> Path:
    """Find a file of the source tree (editable install) or of the package's share folder (colcon).

    :raises FileNotFoundError: When it is in neither.
    """
    package = Path(__file__).resolve().parent
    # colcon: <prefix>/lib/pythonX.Y/site-packages/lightvla_ros beside <prefix>/share/lightvla_ros
    for root in (package.parent, package.parents[3] / 'share' / 'lightvla_ros'):
        if (root / relative).exists():
            return root / relative
    raise FileNotFoundError(f'{relative}: neither in {package.parent} nor in the share folder')
