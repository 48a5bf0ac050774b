"""Worker processes that run episodes; the episodes of a worker that dies go to a new one."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait

from tqdm import tqdm

from lightvla_ros.contract import Manifest, load_manifest
from lightvla_ros.errors import EvaluationError, LightVLAError, sentence
from lightvla_ros.evaluate.episodes import EpisodeRecord, EvalOptions, failed_record, pieces
from lightvla_ros.sim.closed_loop import check_for_libero
from lightvla_ros.sim.episode import EpisodeSpec

PATIENCE = 30.0  # s; a worker with ROS nodes has to stop them

Run = Callable[[EpisodeSpec], EpisodeRecord]
Start = Callable[[int], AbstractContextManager[Run]]  # from a worker's number


@dataclass(frozen=True)
class _Refused:
    """One line that says why a worker cannot run any episode."""

    text: str


@dataclass
class _Worker:
    process: multiprocessing.process.BaseProcess
    connection: Connection
    left: deque[EpisodeSpec] = field(default_factory=deque)  # of its piece, current episode first


def run_pieces(
    pieces: list[list[EpisodeSpec]],
    start: Start,
    workers: int,
    done: Callable[[EpisodeRecord], None],
    method: str = 'spawn',
) -> None:
    """Run episodes in worker processes; each worker takes one piece at a time.

    An episode that raises is recorded with its error. So is an episode in which the worker process
    died, for example out of memory; a new worker continues with the other episodes.

    :param start: Context that a worker enters once; it yields the function that runs an episode.
    :param done: Called in this process with each record.
    :param method: Start method of processes; rendering and ROS need ``spawn``.
    :raises EvaluationError: When a worker cannot start.
    """
    context = multiprocessing.get_context(method)
    waiting = deque(deque(piece) for piece in pieces)
    alive = [_begin(context, start, number) for number in range(min(workers, len(pieces)))]
    everybody = list(alive)
    try:
        while alive:
            for connection in wait([worker.connection for worker in alive]):
                worker = next(each for each in alive if each.connection is connection)
                try:
                    message = connection.recv()
                except (EOFError, ConnectionResetError):
                    alive.remove(worker)
                    _bury(worker, waiting, done)
                    # with a new number, because ROS nodes that it left behind use its domain
                    if waiting and len(alive) < workers:
                        alive.append(_begin(context, start, len(everybody)))
                        everybody.append(alive[-1])
                    continue
                if isinstance(message, _Refused):
                    raise EvaluationError(message.text)
                if isinstance(message, EpisodeRecord):
                    worker.left.popleft()
                    done(message)
                    continue
                worker.left = waiting.popleft() if waiting else deque()  # it requests a piece
                connection.send(list(worker.left))
    finally:
        for worker in everybody:
            worker.process.terminate()
        for worker in everybody:
            worker.process.join(PATIENCE)
            worker.process.kill()
            worker.process.join()
            worker.process.close()
            worker.connection.close()


def _begin(context: multiprocessing.context.BaseContext, start: Start, number: int) -> _Worker:
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, start, number), daemon=True)
    process.start()
    theirs.close()  # otherwise the end of the process would not close the connection
    return _Worker(process, ours)


def _bury(
    worker: _Worker,
    waiting: deque[deque[EpisodeSpec]],
    done: Callable[[EpisodeRecord], None],
) -> None:
    """Record why a worker died, and put back the episodes that it had not begun.

    :raises EvaluationError: When it died before it could run an episode.
    """
    worker.process.join(PATIENCE)
    code = worker.process.exitcode
    text = f'the worker process ended with {code}'
    if code == -signal.SIGKILL:
        text += ' (out of memory?)'
    if worker.left:
        done(failed_record(worker.left.popleft(), text))
    elif code:
        raise EvaluationError(f'{text}; its last output is printed above')
    if worker.left:
        waiting.append(worker.left)


def _work(connection: Connection, start: Start, number: int) -> None:
    """Worker loop: run pieces until the parent sends none or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent ends the workers
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that child processes are ended, too
    try:
        with start(number) as run:
            while True:
                connection.send('next')
                piece = connection.recv()
                if not piece:
                    return
                for spec in piece:
                    connection.send(_attempt(run, spec))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent is gone
    except (LightVLAError, OSError) as error:
        connection.send(_Refused(sentence(error)))
    finally:  # interrupting Python's shutdown would print a traceback
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _attempt(run: Run, spec: EpisodeSpec) -> EpisodeRecord:
    """Run an episode and record its error, except one that would stop every other episode too."""
    try:
        return run(spec)
    except EvaluationError:
        raise
    except Exception as error:
        return failed_record(spec, sentence(error))


def checked_manifest(options: EvalOptions) -> Manifest:
    """Read the policy's manifest, and check before the start that the run is possible.

    :raises ContractError: When the policy cannot be trusted or is not for LIBERO.
    :raises ArgumentError: When the conditions contradict each other.
    """
    manifest = load_manifest(options.policy)
    check_for_libero(manifest)
    options.conditions.check(manifest.action.chunk_length)
    return manifest


def gather(options: EvalOptions, start: Start, unit: str, method: str) -> list[EpisodeRecord]:
    """Run all of ``options.specs`` and return their records in the same order; write no file.

    :param start: Context in which a worker runs, see :func:`run_pieces`.
    :param unit: Unit of the progress bar.
    :param method: Start method of the worker processes.
    :raises EvaluationError: When a worker cannot start, or all of them died.
    """
    records: dict[EpisodeSpec, EpisodeRecord] = {}
    with tqdm(total=len(options.specs), unit=unit, dynamic_ncols=True) as bar:

        def done(record: EpisodeRecord) -> None:
            records[record.spec] = record
            bar.update()

        work = pieces(list(options.specs), options.workers)
        run_pieces(work, start, options.workers, done, method)
    return [records[spec] for spec in options.specs]
