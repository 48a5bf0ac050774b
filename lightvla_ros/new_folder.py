"""Making a folder that is written as a whole."""

from __future__ import annotations

from pathlib import Path


def new_folder(path: Path) -> Path:
    """Create a folder, or take one that is empty.

    :raises FileExistsError: When it holds something.
    """
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    if any(path.iterdir()):
        raise FileExistsError(f'{path} is not empty; remove it or name another folder')
    return path
