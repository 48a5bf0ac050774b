"""Writes files and folders completely or not at all, locks folders, finds the package's files."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import shlex
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lightvla_ros.errors import LightVLAError

LOG = logging.getLogger(__name__)
LOCK_NAME = '.lock'
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Messages of libraries that write without giving an errno: safetensors, PyTorch, NumPy
_SAID = re.compile(
    r'os error (28|122|27)\)|failed writing|unexpected pos \d+ vs|\d+ requested and \d+ written'
)

BUNDLED_POLICY = 'models/libero_tiny'

LFS_POINTER = 'is a Git LFS pointer, not the file itself; fetch it with: git lfs pull'
_BEGINNING = b'version https://git-lfs.github.com/spec/'


class WriteError(LightVLAError):
    """The disk has no room for a file. No part of the file remains."""


class LockedError(LightVLAError):
    """Another run is writing into the folder."""


@contextmanager
def replace_whole(path: Path, needed: int = 0) -> Iterator[Path]:
    """Yield a temporary path; when it is written, it is synced to disk and replaces ``path``.

    The temporary file or folder is beside ``path``, and is removed when an error occurs.

    :param needed: Size of the file [bytes], if known.
    :raises WriteError: When the disk is full.
    """
    part = part_of(path)
    _remove(part)
    try:
        with disk_errors(path, needed, part):
            yield part
            _sync(part)
            os.replace(part, path)
    finally:
        _remove(part)


def part_of(path: Path) -> Path:
    """Return a file's path while it is written; it keeps the suffix, which libraries use."""
    return path.with_name(f'{path.stem}.part{path.suffix}')


def write_text(path: Path, text: str) -> None:
    """Write a text file completely or not at all.

    :raises WriteError: When the disk is full; an older file remains.
    """
    data = text.encode()
    with replace_whole(path, len(data)) as part:
        part.write_bytes(data)


def append(file: BinaryIO, data: bytes) -> None:
    """Append to an unbuffered file, completely or not at all, and sync it to disk.

    :raises WriteError: When the disk is full; the file is unchanged.
    """
    end = file.seek(0, os.SEEK_END)
    try:
        with disk_errors(Path(file.name), len(data)):
            left = memoryview(data)
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
    except BaseException:
        file.truncate(end)
        raise


def incomplete(path: Path, what: str) -> WriteError:
    """Return the error for a file that a library wrote incompletely without giving a reason.

    :param what: What is wrong with the file.
    """
    return WriteError(
        f'{path}: cannot be written: {what}; is the disk full? {_bytes(_free(path))} are free'
    )


def check_room(path: Path, needed: int) -> None:
    """Check that the disk has room; another program may still use it up.

    :raises WriteError: When the disk has less room.
    """
    if _free(path) < needed:
        raise _full(path, f'{_bytes(needed)} are needed', 0)


@contextmanager
def room_for(path: Path, needed: int) -> Iterator[None]:
    """Reserve disk space after the end of a file, for a library that writes there.

    :raises WriteError: When there is no room; the file is unchanged.
    """
    with path.open('r+b') as file:
        end = file.seek(0, os.SEEK_END)
        try:
            with disk_errors(path, needed):
                os.posix_fallocate(file.fileno(), end, needed)
        except BaseException:
            file.truncate(end)
            raise
    yield


@contextmanager
def disk_errors(path: Path, needed: int = 0, part: Path | None = None) -> Iterator[None]:
    """Replace a full disk's errors by one line with the needed and the free space.

    :param needed: Needed space [bytes]; 0 if unknown.
    :param part: A file or folder that is removed afterwards; its size counts as free.
    :raises WriteError: When the disk is full.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, WriteError) or not _is_full(error):
            raise
        written = _size(part) if part is not None else 0
        wanted = f'{_bytes(needed)} are' if needed else f'more than {_bytes(written)} is'
        code = errno.EFBIG if _code(error) == errno.EFBIG else errno.ENOSPC
        raise _full(path, f'{wanted} needed', written, code) from None


@contextmanager
def one_writer(folder: Path, lock: Path | None = None) -> Iterator[None]:
    """Prevent other runs from writing into a folder, which is created if it does not exist.

    The lock is the kernel's (flock), so it ends with the process that holds it, even after a crash;
    the lock file only names that process. On NFS it works between machines, unless mounted with
    ``nolock`` or ``local_lock``; if a file system has no locks, the log says so.

    :param lock: The lock file; by default ``.lock`` in the folder.
    :raises LockedError: When another run holds the lock.
    """
    if lock is None:
        lock = folder / LOCK_NAME
    lock.parent.mkdir(parents=True, exist_ok=True)
    file = _locked(folder, lock)
    try:
        with disk_errors(lock):
            who = f'process {os.getpid()} on {socket.gethostname()} ({shlex.join(sys.argv)[:200]})'
            file.truncate(0)
            file.write(who.encode())
        yield
    finally:
        # before the lock is released: afterwards the file may belong to another run
        lock.unlink(missing_ok=True)
        file.close()


def lock_beside(folder: Path) -> Path:
    """Return a lock file beside a folder that may hold no other files, such as a policy folder."""
    folder = folder.resolve()
    return folder.with_name(f'{folder.name}.lock')


def _locked(folder: Path, lock: Path) -> BinaryIO:
    while True:
        file = lock.open('a+b', buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            who = file.read().decode('utf-8', 'replace') or 'another process'
            file.close()
            raise LockedError(
                f'{folder}: is being written by {who}; wait for it to end, or name another folder'
            ) from None
        except OSError as error:
            LOG.warning('%s: cannot lock (%s): make sure no other run writes there', lock, error)
            return file
        # The previous holder may have removed the file in between
        if lock.exists() and os.fstat(file.fileno()).st_ino == lock.stat().st_ino:
            return file
        file.close()


def _full(path: Path, wanted: str, written: int, code: int = errno.ENOSPC) -> WriteError:
    cause, free = os.strerror(code), _bytes(_free(path) + written)
    return WriteError(f'{path}: cannot be written: {cause}; {wanted}, {free} are free')


def _is_full(error: Exception) -> bool:
    return _code(error) in _FULL or bool(_SAID.search(str(error)))


def _code(error: Exception) -> int | None:
    return getattr(error, 'errno', None)


def _free(path: Path) -> int:
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    return shutil.disk_usage(folder).free


def _bytes(count: int) -> str:
    return f'{count / 1e6:.1f} MB' if count < 1e9 else f'{count / 1e9:.1f} GB'


def _size(path: Path) -> int:
    """Return the size of files without other hard links; removing the others frees no space."""
    files = path.rglob('*') if path.is_dir() else [path]
    found = [file.stat() for file in files if file.is_file()]
    return sum(status.st_size for status in found if status.st_nlink == 1)


def _sync(path: Path) -> None:
    """Sync a file, or a folder with all its files, to disk."""
    for each in (path, *path.rglob('*')) if path.is_dir() else (path,):
        number = os.open(each, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def new_folder(path: Path) -> Path:
    """Create a folder, or accept an empty one.

    :raises FileExistsError: When the folder is not empty.
    """
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    if any(path.iterdir()):
        raise FileExistsError(f'{path} is not empty; remove it or name another folder')
    return path


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Create a folder, or accept an empty one, and empty it again when filling it fails.

    The folder is emptied, not replaced, because it may be a mount point or a link. The first error
    is raised, even if clearing up fails, too.

    :raises FileExistsError: When the folder is not empty.
    :raises WriteError: When the disk is full.
    """
    path = Path(path)
    created = not path.exists()
    new_folder(path)
    try:
        with disk_errors(path, part=path):
            yield path
    except BaseException:  # also Ctrl-C: an incomplete folder is useless
        with contextlib.suppress(OSError):
            for child in path.iterdir():
                if child.is_dir() and not child.is_symlink():
                    shutil.rmtree(child, ignore_errors=True)
                else:
                    child.unlink()
            if created:
                path.rmdir()
        raise


def resource(relative: str) -> Path:
    """Find a file of the source tree (editable install) or of the share folder (colcon, wheel).

    :raises FileNotFoundError: When neither has it.
    """
    package = Path(__file__).resolve().parent
    if (package.parent / relative).exists():
        return package.parent / relative
    # <prefix>/lib/pythonX.Y/site-packages/lightvla_ros beside <prefix>/share/lightvla_ros
    for prefix in package.parents:
        if (prefix / 'share' / 'lightvla_ros' / relative).exists():
            return prefix / 'share' / 'lightvla_ros' / relative
    cure = 'name a policy folder by --policy' if relative == BUNDLED_POLICY else 'install it again'
    raise FileNotFoundError(
        f'{relative}: is neither in {package.parent} nor in share/lightvla_ros of this install; '
        f'{cure}'
    )


def is_lfs_pointer(path: Path) -> bool:
    """Return whether a file is a Git LFS pointer: a few lines of text that name the real file.

    :raises OSError: When the file cannot be read.
    """
    with Path(path).open('rb') as file:
        return file.read(len(_BEGINNING)) == _BEGINNING
