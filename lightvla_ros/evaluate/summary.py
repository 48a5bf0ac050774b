"""The result of an evaluation: one JSON document, its file, and its table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from lightvla_ros.errors import EvaluationError
from lightvla_ros.evaluate.rates import rate_of
from lightvla_ros.evaluate.record import EpisodeRecord
from lightvla_ros.files import write_text

FORMAT = 1


def summarise(
    header: dict[str, Any],
    options: dict[str, Any],
    records: Iterable[EpisodeRecord],
    flops: dict[str, Any],
) -> dict[str, Any]:
    """Compose the document.

    An episode with an error is in ``errors`` and in ``all_episodes``, and counts nowhere else.

    :param header: ``policy``, ``conditions`` and ``versions``.
    :param options: Which episodes were asked for, and how they were run.
    """
    records = sorted(records, key=lambda record: _order(record))
    valid = [record for record in records if not record.error]
    successes = sum(bool(record.success) for record in valid)
    return {
        'format': FORMAT,
        **header,
        'options': options,
        'date': datetime.now(UTC).isoformat(timespec='seconds'),
        'episodes': len(valid),
        'successes': successes,
        'success': rate_of(successes, len(valid)),
        'errors': [
            {**vars(record.spec), 'error': record.error} for record in records if record.error
        ],
        'by_task': by_task(records),
        'kept_tokens': kept_tokens(valid),
        'flops': flops,
        'latency_ms': latency(valid),
        'all_episodes': [record.as_dict() for record in records],
    }


def by_task(records: Sequence[EpisodeRecord]) -> list[dict[str, Any]]:
    """Return a row for each task: episodes, successes, rate with interval, errors."""
    rows = []
    for suite, task in dict.fromkeys((record.suite, record.task) for record in records):
        those = [r for r in records if (r.suite, r.task) == (suite, task)]
        valid = [record for record in those if not record.error]
        successes = sum(bool(record.success) for record in valid)
        rows.append(
            {
                'suite': suite,
                'task': task,
                'instruction': next((record.instruction for record in valid), ''),
                'episodes': len(valid),
                'successes': successes,
                **rate_of(successes, len(valid)),
                'errors': len(those) - len(valid),
            }
        )
    return rows


def kept_tokens(records: Sequence[EpisodeRecord]) -> dict[str, Any]:
    """Return mean and sd of the visual tokens of a chunk, of all cameras and per camera."""
    totals = [count for record in records for count in record.kept_totals]
    cameras = dict.fromkeys(name for record in records for name in record.kept)
    return {
        **_mean_and_sd(totals),
        'per_camera': {
            name: _mean_and_sd([n for record in records for n in record.kept.get(name, [])])
            for name in cameras
        },
    }


def latency(records: Sequence[EpisodeRecord]) -> dict[str, float | int | None]:
    """Return percentiles of what a chunk took: preprocessing, encode and act, in milliseconds."""
    values = [value for record in records for value in record.latency_ms]
    found = {
        f'p{at}': round(float(np.percentile(values, at)), 2) if values else None for at in (50, 95)
    }
    return {**found, 'chunks': len(values)}


def write_document(path: Path, document: dict[str, Any]) -> None:
    """Write a result at once: what is there is whole at any time. An episode is a line."""
    head = {key: value for key, value in document.items() if key != 'all_episodes'}
    lines = ',\n'.join(f'    {json.dumps(each)}' for each in document['all_episodes'])
    text = json.dumps(head, indent=2)[:-2] + f',\n  "all_episodes": [\n{lines}\n  ]\n}}\n'
    write_text(path, text)


def read_document(path: Path) -> dict[str, Any]:
    """Read a result, with its episodes as records.

    :raises EvaluationError: When there is none or it is something else.
    """
    try:
        document = json.loads(Path(path).read_text(encoding='utf-8'))
        if document['format'] != FORMAT:
            raise EvaluationError(
                f'{path}: format {document["format"]}, this release reads {FORMAT}'
            )
        episodes = [EpisodeRecord.from_dict(fields) for fields in document['all_episodes']]
        _check_records(path, episodes)
        return {**document, 'all_episodes': episodes}
    except OSError as error:
        raise EvaluationError(f'{path}: {error.strerror}') from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EvaluationError(f'{path}: is no result of `lightvla eval` ({error!r})') from None


def _check_records(path: Path, records: Sequence[EpisodeRecord]) -> None:
    """Refuse what would count as something else: no outcome as a failure, an episode as two.

    :raises EvaluationError: Naming the episode.
    """
    seen = set()
    for record in records:
        if record.spec in seen:
            raise EvaluationError(f'{path}: {record.spec} is in it twice; remove one of them')
        seen.add(record.spec)
        if not record.error and not isinstance(record.success, bool):
            raise EvaluationError(
                f'{path}: {record.spec} has no error and no outcome (success is '
                f'{record.success!r}); run it again'
            )


def table(document: dict[str, Any]) -> str:
    """Return the document as text: a row per task, then what all chunks had in common."""
    lines = [f'{"suite":<16}{"task":>5}{"solved":>10}{"rate":>8}   95 % interval   instruction']
    for row in document['by_task']:
        errors = f'  [{row["errors"]} errors]' if row['errors'] else ''
        lines.append(
            f'{row["suite"]:<16}{row["task"]:>5}{_solved(row):>10}{_rate(row)}   '
            f'{row["instruction"]}{errors}'
        )
    lines.append(f'{"all":<21}{_solved(document):>10}{_rate(document["success"])}')
    kept, times, flops = (document[key] for key in ('kept_tokens', 'latency_ms', 'flops'))
    if kept['mean'] is not None:
        cameras = ', '.join(
            f'{name} {each["mean"]:g} +- {each["sd"]:g}'
            for name, each in kept['per_camera'].items()
        )
        lines.append(f'kept tokens   {kept["mean"]:g} +- {kept["sd"]:g} ({cameras})')
        lines.append(f'chunk         p50 {times["p50"]:g} ms, p95 {times["p95"]:g} ms')
    if 'skipped' in flops:
        lines.append(f'FLOPs         not counted: {flops["skipped"]}')
    else:
        lines.append(
            f'FLOPs         {flops["tflop"]:.4g} TFLOP a chunk, {flops["ratio"]:.1%} of the '
            f'{flops["tflop_unpruned"]:.4g} of an unpruned one'
        )
    for each in document['errors'][:5]:
        lines.append(
            f'ERROR         {each["suite"]} task {each["task"]} state {each["init_state"]}: '
            f'{each["error"]}'
        )
    if document['errors']:
        lines.append(
            f'{len(document["errors"])} episodes are errors and count nowhere; run the same '
            'command again to retry them'
        )
    return '\n'.join(lines)


def _order(record: EpisodeRecord) -> tuple[str, int, int, int]:
    return record.suite, record.task, record.init_state, record.seed


def _mean_and_sd(values: Sequence[int]) -> dict[str, float | None]:
    if not values:
        return {'mean': None, 'sd': None}
    return {'mean': round(float(np.mean(values)), 2), 'sd': round(float(np.std(values)), 2)}


def _solved(row: dict[str, Any]) -> str:
    return f'{row["successes"]}/{row["episodes"]}'


def _rate(row: dict[str, Any]) -> str:
    if row['rate'] is None:
        return f'{"-":>8}{"":>17}'
    return f'{row["rate"]:>8.1%}   {row["low"]:>5.1%} to {row["high"]:>6.1%}'
