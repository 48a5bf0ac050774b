"""Reads recordings in a separate process, which is killed when a file hangs or crashes it.

HDF5 trusts the contents of a file: of files with eight random bytes, some made it run endlessly and
some crashed it. In the training process, either would end the run.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

from lightvla_ros.errors import DamagedFileError, DemonstrationError

PATIENCE = 120  # s for one answer, which is at most an episode; also of a slow network disk
_WHAT_ENDED_IT = {
    signal.SIGALRM: 'reading it came to no end in {patience} s',
    signal.SIGKILL: 'reading it was killed; out of memory?',
    signal.SIGSEGV: 'its library crashes on it',
}


class ReadingProcess:
    """The process; it is started when it is first needed, and restarted after it has ended."""

    def __init__(self) -> None:
        self._owner = 0
        self._child: subprocess.Popen | None = None
        self._connection: Connection | None = None

    def stream(
        self, function: Callable[..., Iterator[Any]], path: Path, *arguments: Any
    ) -> Iterator[Any]:
        """Yield the results of a generator function that reads a file in the process.

        :param function: Called there with ``path`` and ``arguments``. The process is killed when
            the caller stops before the end.
        :raises DemonstrationError: What it raises there, and so is ModuleNotFoundError.
        :raises DamagedFileError: When the process ended, or an answer took too long.
        """
        # a forked child must not talk to its parent's
        if self._child is None or self._owner != os.getpid():
            self._start()
        answered = False
        try:
            self._connection.send((PATIENCE, function, path, *arguments))
            while True:
                kind, value = self._connection.recv()
                if kind != 'item':
                    answered = True
                    break
                yield value
        except (EOFError, OSError):
            form = 'HDF5' if str(path).endswith('.hdf5') else 'a recording'
            raise DamagedFileError(path, self._why(), form) from None
        finally:
            if not answered:
                self._end()
        if kind == 'error':
            raise value

    def _start(self) -> None:
        ours, theirs = Pipe()
        # not multiprocessing's spawn, which would run the caller's script once more
        self._child = subprocess.Popen(
            [sys.executable, '-m', __name__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env=os.environ | {'PYTHONPATH': os.pathsep.join(p or os.getcwd() for p in sys.path)},
        )
        theirs.close()
        self._connection, self._owner = ours, os.getpid()

    def _end(self) -> None:
        if self._child is not None:
            self._connection.close()
            self._child.kill()
            self._child.wait()
            self._child = None

    def _why(self) -> str:
        code = self._child.wait()
        text = _WHAT_ENDED_IT.get(-code, 'the process that read it ended with {code}')
        return text.format(patience=PATIENCE, code=code)


_process = ReadingProcess()
stream = _process.stream


def _serve(connection: Connection) -> None:
    """Answer requests until the parent closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent ends this
    while True:
        try:
            patience, function, path, *arguments = connection.recv()
        except EOFError:
            return
        # The alarm's default action ends a process in the midst of C code, too, and leaves none
        # behind that spins when the parent is gone
        signal.alarm(patience)
        try:
            for item in function(path, *arguments):
                connection.send(('item', item))
                signal.alarm(patience)
            answer = ('end', None)
        except (DemonstrationError, ModuleNotFoundError) as error:
            answer = ('error', error)
        signal.alarm(0)
        connection.send(answer)


if __name__ == '__main__':
    _serve(Connection(int(sys.argv[1])))
