"""The results of several machines, put together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightvla_ros.errors import EvaluationError
from lightvla_ros.evaluate.flops import merged_flops
from lightvla_ros.evaluate.journal import first_difference
from lightvla_ros.evaluate.summary import read_document, summarise

ALIKE = ('policy', 'conditions', 'versions')


def merge(paths: list[Path]) -> dict[str, Any]:
    """Return one document of several results.

    :raises EvaluationError: When they are of other policies, conditions or versions, or share an
        episode.
    """
    documents = [read_document(path) for path in paths]
    first = documents[0]
    where = {}
    for path, document in zip(paths, documents, strict=True):
        for key in ALIKE:
            if difference := first_difference(document[key], first[key], key):
                raise EvaluationError(f'{path}: {difference} as in {paths[0]}; only like is merged')
        for record in document['all_episodes']:
            if record.spec in where:
                raise EvaluationError(f'{record.spec} is in {where[record.spec]} and in {path}')
            where[record.spec] = path
    asked = first['options']['asked']
    if any(document['options']['asked'] != asked for document in documents):
        asked = None  # not shards of one call: what is missing cannot be known
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
    """Return how many of the episodes that were asked for are not there, where that is known."""
    asked = document['options']['asked']
    return 0 if asked is None else asked['episodes'] - len(document['all_episodes'])
