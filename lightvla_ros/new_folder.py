"""Making a folder that is written as a whole."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightvla_ros.files import disk_errors


def new_folder(path: Path) -> Path:
    """Create a folder, or take one that is empty.

    :raises FileExistsError: When it holds something.
    """
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    if any(path.iterdir()):
        raise FileExistsError(f'{path} is not empty; remove it or name another folder')
    return path


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Create a folder, or take one that is empty, and leave it so when its making fails.

    It is emptied, not replaced: it may be a mount point or a link. What failed first is what is
    raised, whatever the clearing up meets.

    :raises FileExistsError: When it holds something.
    :raises WriteError: When the disk is full.
    """
    path = Path(path)
    created = not path.exists()
    new_folder(path)
    try:
        with disk_errors(path, part=path):
            yield path
    except BaseException:  # also Ctrl-C: half of it is nothing
        with contextlib.suppress(OSError):
            for child in path.iterdir():
                if child.is_dir() and not child.is_symlink():
                    shutil.rmtree(child, ignore_errors=True)
                else:
                    child.unlink()
            if created:
                path.rmdir()
        raise
