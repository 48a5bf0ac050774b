"""Files that a clone without Git LFS leaves in the place of the true ones."""

from __future__ import annotations

from pathlib import Path

LFS_POINTER = 'is a Git LFS pointer, not the file itself; fetch it with: git lfs pull'
_BEGINNING = b'version https://git-lfs.github.com/spec/'


def is_lfs_pointer(path: Path) -> bool:
    """Tell whether a file is a pointer: a few lines of text that name the true one.

    :raises OSError: When it cannot be read.
    """
    with Path(path).open('rb') as file:
        return file.read(len(_BEGINNING)) == _BEGINNING
