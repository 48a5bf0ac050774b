"""Runs what is asked for in worker processes and gathers the records; no journal, no file."""

from __future__ import annotations

from tqdm import tqdm

from lightvla_ros.contract import Manifest, load_manifest
from lightvla_ros.evaluate.options import EvalOptions, pieces
from lightvla_ros.evaluate.pool import Start, run_pieces
from lightvla_ros.evaluate.record import EpisodeRecord
from lightvla_ros.sim.closed_loop import check_for_libero
from lightvla_ros.sim.episode import EpisodeSpec


def checked_manifest(options: EvalOptions) -> Manifest:
    """Read the policy's manifest, and see before anything starts that the run can be.

    :raises ContractError: When the policy cannot be trusted or is none for LIBERO.
    :raises ArgumentError: When the conditions do not go together.
    """
    manifest = load_manifest(options.policy)
    check_for_libero(manifest)
    options.conditions.check(manifest.action.chunk_length)
    return manifest


def gather(options: EvalOptions, start: Start, unit: str, method: str) -> list[EpisodeRecord]:
    """Run all of ``options.specs`` and return a record of each, in their order.

    :param start: What a worker runs, see :func:`run_pieces`.
    :param unit: What the progress bar counts.
    :param method: How workers are started.
    :raises EvaluationError: When a worker cannot begin, or all of them died.
    """
    records: dict[EpisodeSpec, EpisodeRecord] = {}
    with tqdm(total=len(options.specs), unit=unit, dynamic_ncols=True) as bar:

        def done(record: EpisodeRecord) -> None:
            records[record.spec] = record
            bar.update()

        work = pieces(list(options.specs), options.workers)
        run_pieces(work, start, options.workers, done, method)
    return [records[spec] for spec in options.specs]
