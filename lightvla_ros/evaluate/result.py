"""The result of an evaluation: one JSON document, its file and table, and merging several."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightvla_ros.contract import Manifest
from lightvla_ros.errors import EvaluationError
from lightvla_ros.evaluate.chunk_flops import merged_flops
from lightvla_ros.evaluate.episodes import EpisodeRecord, EvalOptions, error_lines
from lightvla_ros.evaluate.journal import first_difference
from lightvla_ros.evaluate.rates import rate_of
from lightvla_ros.files import write_text
from lightvla_ros.machine import machine, versions
from lightvla_ros.sim.libero_env import PACKAGES
from lightvla_ros.summary_statistics import mean_and_sd, percentiles

FORMAT = 1

ALIKE = ('policy', 'conditions', 'versions')


def summarise(
    header: dict[str, Any],
    options: dict[str, Any],
    records: Iterable[EpisodeRecord],
    flops: dict[str, Any],
) -> dict[str, Any]:
    """Compose the document.

    An episode with an error is in ``errors`` and in ``all_episodes``, and is not counted elsewhere.

    :param header: ``policy``, ``conditions`` and ``versions``.
    :param options: The requested episodes, and how they were run.
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
    """Return mean and sd of the kept visual tokens of a chunk, of all cameras and per camera."""
    totals = [count for record in records for count in record.kept_totals]
    cameras = dict.fromkeys(name for record in records for name in record.kept)
    return {
        **mean_and_sd(totals),
        'per_camera': {
            name: mean_and_sd([n for record in records for n in record.kept.get(name, [])])
            for name in cameras
        },
    }


def latency(records: Sequence[EpisodeRecord]) -> dict[str, float | int | None]:
    """Return percentiles of a chunk's time [ms]: preprocessing, encode and act."""
    values = [value for record in records for value in record.latency_ms]
    names = ('p50', 'p95')
    found = percentiles(values, names, digits=2) if values else dict.fromkeys(names)
    return {**found, 'chunks': len(values)}


def write_document(path: Path, document: dict[str, Any]) -> None:
    """Write a result atomically, with one line per episode."""
    head = {key: value for key, value in document.items() if key != 'all_episodes'}
    lines = ',\n'.join(f'    {json.dumps(each)}' for each in document['all_episodes'])
    text = json.dumps(head, indent=2)[:-2] + f',\n  "all_episodes": [\n{lines}\n  ]\n}}\n'
    write_text(path, text)


def read_document(path: Path) -> dict[str, Any]:
    """Read a result, with its episodes as records.

    :raises EvaluationError: When the file is missing or not a result.
    """
    try:
        document = json.loads(Path(path).read_text(encoding='utf-8'))
        if document['format'] != FORMAT:
            raise EvaluationError(
                f'{path}: has format {document["format"]}, but this release reads format {FORMAT}'
            )
        episodes = [EpisodeRecord.from_dict(fields) for fields in document['all_episodes']]
        _check_records(path, episodes)
        return {**document, 'all_episodes': episodes}
    except OSError as error:
        raise EvaluationError(f'{path}: {error.strerror}') from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EvaluationError(f'{path}: is not a result of `lightvla eval` ({error!r})') from None


def _check_records(path: Path, records: Sequence[EpisodeRecord]) -> None:
    """Refuse an episode without outcome or error, and an episode that occurs twice.

    :raises EvaluationError: Naming the episode.
    """
    seen = set()
    for record in records:
        if record.spec in seen:
            raise EvaluationError(f'{path}: {record.spec} occurs twice; remove one of them')
        seen.add(record.spec)
        if not record.error and not isinstance(record.success, bool):
            raise EvaluationError(
                f'{path}: {record.spec} has neither an error nor an outcome (success is '
                f'{record.success!r}); run it again'
            )


def table(document: dict[str, Any]) -> str:
    """Return the document as text: a row per task, then figures of all chunks."""
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
            f'FLOPs         {flops["tflop"]:.4g} TFLOP per chunk, {flops["ratio"]:.1%} of the '
            f'{flops["tflop_unpruned"]:.4g} TFLOP of an unpruned chunk'
        )
    lines += error_lines(document['errors'])
    if document['errors']:
        lines.append(
            f'{len(document["errors"])} episodes are errors and are not counted; run the same '
            'command again to retry them'
        )
    return '\n'.join(lines)


def _order(record: EpisodeRecord) -> tuple[str, int, int, int]:
    return record.suite, record.task, record.init_state, record.seed


def _solved(row: dict[str, Any]) -> str:
    return f'{row["successes"]}/{row["episodes"]}'


def _rate(row: dict[str, Any]) -> str:
    if row['rate'] is None:
        return f'{"-":>8}{"":>17}'
    return f'{row["rate"]:>8.1%}   {row["low"]:>5.1%} to {row["high"]:>6.1%}'


def merge(paths: list[Path]) -> dict[str, Any]:
    """Merge several results into one document.

    :raises EvaluationError: When they have different policies, conditions or versions, or share an
        episode.
    """
    documents = [read_document(path) for path in paths]
    first = documents[0]
    where = {}
    for path, document in zip(paths, documents, strict=True):
        for key in ALIKE:
            if difference := first_difference(document[key], first[key], key):
                raise EvaluationError(
                    f'{path}: {difference} as in {paths[0]}; only results with the same policy, '
                    'conditions and versions can be merged'
                )
        for record in document['all_episodes']:
            if record.spec in where:
                raise EvaluationError(f'{record.spec} is in {where[record.spec]} and in {path}')
            where[record.spec] = path
    asked = first['options']['asked']
    if any(document['options']['asked'] != asked for document in documents):
        asked = None  # not shards of one call, so missing episodes cannot be known
    return summarise(
        {key: first[key] for key in (*ALIKE, 'machine')},
        {
            'asked': asked,
            'merged': [
                {
                    'file': path.name,
                    'date': document['date'],
                    'machine': document['machine'],
                    'options': document['options'],
                }
                for path, document in zip(paths, documents, strict=True)
            ],
        },
        [record for document in documents for record in document['all_episodes']],
        merged_flops([document['flops'] for document in documents]),
    )


def missing(document: dict[str, Any]) -> int:
    """Return how many requested episodes are missing; 0 if that cannot be known."""
    asked = document['options']['asked']
    return 0 if asked is None else asked['episodes'] - len(document['all_episodes'])


def result_header(options: EvalOptions, manifest: Manifest) -> dict[str, Any]:
    """Return the first fields of results of ``lightvla show`` and ``lightvla listen``, for JSON.

    They are policy, conditions, versions, machine and date.
    """
    return {
        **header_of(options, manifest),
        'machine': machine(),
        'date': datetime.now(UTC).isoformat(timespec='seconds'),
    }


def header_of(options: EvalOptions, manifest: Manifest) -> dict[str, Any]:
    """Return the header of journal and result: everything that can change an outcome."""
    library = options.conditions.engine.split('-')[0]  # torch-cuda runs on torch
    names = ('lightvla_ros', *PACKAGES, library)
    return {
        'policy': {'name': manifest.name, 'fingerprint': manifest.fingerprint},
        'conditions': options.conditions.as_dict(),
        'versions': versions(names),
    }


def options_of(options: EvalOptions) -> dict[str, Any]:
    """Return the requested episodes, the shard and the number of workers."""
    specs = options.specs
    return {
        'asked': {
            'suites': list(dict.fromkeys(spec.suite for spec in specs)),
            'tasks': sorted({spec.task for spec in specs}),
            'inits': sorted({spec.init_state for spec in specs}),
            'seeds': sorted({spec.seed for spec in specs}),
            'episodes': len(specs),
        },
        'shard': '{}/{}'.format(*options.shard),
        'workers': options.workers,
        'policy_folder': str(options.policy),
    }
