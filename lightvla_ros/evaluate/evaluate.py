"""Runs the episodes that the journal lacks in worker processes, then writes the result."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lightvla_ros.contract import Manifest
from lightvla_ros.errors import ArgumentError
from lightvla_ros.evaluate.chunk_flops import chunk_flops
from lightvla_ros.evaluate.direct import direct_episodes
from lightvla_ros.evaluate.episodes import EpisodeRecord, EvalOptions, pieces
from lightvla_ros.evaluate.journal import Journal
from lightvla_ros.evaluate.pool import Start, checked_manifest, run_pieces
from lightvla_ros.evaluate.result import header_of, options_of, summarise, write_document
from lightvla_ros.files import one_writer
from lightvla_ros.machine import machine
from lightvla_ros.sim.episode import EpisodeSpec


def evaluate(
    options: EvalOptions, start: Start | None = None, method: str = 'spawn'
) -> dict[str, Any]:
    """Run the episodes that the journal lacks, write the result and return it.

    :param start: Context in which a worker runs episodes, see :func:`run_pieces`; None runs them
        directly, without ROS.
    :param method: Start method of the worker processes.
    :raises ContractError: When the policy cannot be trusted or is not for LIBERO.
    :raises ArgumentError: When the conditions contradict each other.
    :raises EvaluationError: When the evaluation fails; finished episodes are in the journal.
    :raises LockedError: When another run writes this result.
    """
    manifest = checked_manifest(options)
    with one_writer(options.out, options.out.with_suffix('.lock')):
        return _evaluate(options, manifest, start, method)


def _evaluate(
    options: EvalOptions, manifest: Manifest, start: Start | None, method: str
) -> dict[str, Any]:
    header = header_of(options, manifest)
    with Journal(journal_path(options.out), header) as journal:
        left = [spec for spec in options.wanted if not _is_done(journal, spec)]
        with _progress(journal, options) as bar:

            def done(record: EpisodeRecord) -> None:
                journal.add(record)
                bar.update(not record.error)
                bar.set_description_str(_solved(journal, options))

            if left:
                _run(options, left, start, method, done)
        records = [journal.records[spec] for spec in options.wanted]
    kept = [number for record in records if not record.error for number in record.kept_totals]
    document = summarise(
        {**header, 'machine': machine()},
        options_of(options),
        records,
        chunk_flops(manifest, kept, options.conditions.prune),
    )
    write_document(options.out, document)
    return document


def journal_path(out: Path) -> Path:
    """Return the path of a result's journal.

    :raises ArgumentError: When the result's name does not end in ``.json``.
    """
    if out.suffix != '.json':
        raise ArgumentError(f'{out}: the name must end in .json')
    return out.with_suffix('.jsonl')


def _run(
    options: EvalOptions, left: list[EpisodeSpec], start: Start | None, method: str, done: Any
) -> None:
    if start is None:
        start = partial(direct_episodes, options)
    run_pieces(pieces(left, options.workers), start, options.workers, done, method)


def _is_done(journal: Journal, spec: EpisodeSpec) -> bool:
    """Return whether an episode was measured; an episode with an error is run again."""
    return spec in journal.records and not journal.records[spec].error


def _progress(journal: Journal, options: EvalOptions) -> tqdm:
    return tqdm(
        total=len(options.wanted),
        initial=sum(_is_done(journal, spec) for spec in options.wanted),
        desc=_solved(journal, options),
        unit='episode',
        dynamic_ncols=True,
    )


def _solved(journal: Journal, options: EvalOptions) -> str:
    found = [journal.records[spec] for spec in options.wanted if spec in journal.records]
    errors = sum(bool(record.error) for record in found)
    text = f'solved {sum(bool(record.success) for record in found)} of {len(found) - errors}'
    return f'{text}, {errors} errors' if errors else text
