"""Number of kept tokens, and the share of them that shows the objects of the task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from lightvla_ros.evaluate.direct import load_policy
from lightvla_ros.evaluate.episodes import EpisodeRecord, EvalOptions, error_lines
from lightvla_ros.evaluate.pool import Start, checked_manifest, gather
from lightvla_ros.evaluate.result import options_of, result_header
from lightvla_ros.show.watch import watch_episode
from lightvla_ros.sim.episode import EpisodeSpec
from lightvla_ros.sim.patch_owners import ROLES, Shares, sum_of

FEWEST, MOST, LEAST_ON_TASK = 0.05, 0.25, 0.5  # the paper's claim, in figures


@dataclass(frozen=True)
class ConcentrationRecord(EpisodeRecord):
    """An episode's patches by role.

    :param shares: Of each camera.
    """

    shares: dict[str, Shares] = field(default_factory=dict)


def figures(shares: dict[str, Shares]) -> dict[str, Any]:
    """Return the figures of cameras' patches, for JSON: all together, and each camera's.

    ``kept`` is always a share of the kept patches, ``image`` of all patches.
    """
    chunks = max((each.frames for each in shares.values()), default=0)
    return {
        'chunks': chunks,
        **_figures(sum_of(list(shares.values())), chunks),
        'per_camera': {name: _figures(each, chunks) for name, each in shares.items()},
    }


def criterion(document: dict[str, Any]) -> dict[str, bool]:
    """Tell whether 5 to 25 % of the tokens are kept, and at least half of those on the task."""
    return {
        'keeps_5_to_25_percent': FEWEST <= document['kept_share'] <= MOST,
        'half_of_kept_on_task': document['on_task']['kept'] >= LEAST_ON_TASK,
    }


def measure(
    options: EvalOptions, start: Start | None = None, method: str = 'spawn'
) -> dict[str, Any]:
    """Run episodes in worker processes and return the figures of all; nothing is written.

    :param start: What a worker runs episodes with, see :func:`run_pieces`; tests put theirs here.
    :param method: How workers are started.
    :raises ContractError: When the policy cannot be trusted or is none for LIBERO.
    :raises EvaluationError: When it cannot be done as asked.
    """
    manifest = checked_manifest(options)
    records = gather(options, start or partial(episodes, options), 'episode', method)
    return {
        **result_header(options, manifest),
        'options': options_of(options),
        **summarise(records),
    }


def summarise(records: Sequence[EpisodeRecord]) -> dict[str, Any]:
    """Return the figures of all episodes, of each suite, and of each episode."""
    valid = [record for record in records if not record.error]
    everything = figures(_together(valid))
    return {
        'episodes': len(valid),
        'successes': sum(bool(record.success) for record in valid),
        **everything,
        'criterion': criterion(everything),
        'by_suite': {
            suite: figures(_together([record for record in valid if record.suite == suite]))
            for suite in dict.fromkeys(record.suite for record in valid)
        },
        'errors': [{**vars(r.spec), 'error': r.error} for r in records if r.error],
        'all_episodes': [_line(record) for record in valid],
    }


@contextmanager
def episodes(
    options: EvalOptions, number: int
) -> Iterator[Callable[[EpisodeSpec], ConcentrationRecord]]:
    """Load the policy, and yield what runs an episode.

    :param number: Index of the worker (unused).
    :raises ContractError: When the policy cannot be trusted.
    :raises EngineError: When its engine cannot be loaded.
    """
    policy, _ = load_policy(options)
    environments = options.conditions.environments()

    def run(spec: EpisodeSpec) -> ConcentrationRecord:
        with environments.of(spec) as env:
            seen = watch_episode(policy, env, spec, options.conditions.replan)
        return ConcentrationRecord(
            **vars(spec),
            instruction=seen.instruction,
            success=seen.success,
            steps=seen.total_steps,
            renderer=env.renderer,
            shares=seen.shares,
        )

    try:
        yield run
    finally:
        environments.close()
        policy.close()


def table(document: dict[str, Any]) -> str:
    """Return the figures as text."""
    width = max(map(len, ROLES)) + 2
    lines = [
        f'{document["episodes"]} episodes ({document["successes"]} solved), '
        f'{document["chunks"]} chunks',
        f'kept tokens   {document["mean_kept_tokens"]:.1f} of {document["tokens"]:g} '
        f'({document["kept_share"]:.1%})',
        '',
    ]
    parts = {'all cameras': document, **document['per_camera']}
    heads = ''.join(f'{name.replace("_", " "):>20}' for name in parts)
    lines.append(f'{"% of patches":<{width}}{heads}')
    lines.append(' ' * width + f'{"kept":>13}{"image":>7}' * len(parts))
    for role in (*ROLES, 'on task'):
        shares = [p['on_task'] if role == 'on task' else p['by_role'][role] for p in parts.values()]
        cells = ''.join(f'{100 * s["kept"]:>13.1f}{100 * s["image"]:>7.1f}' for s in shares)
        lines.append(f'{role:<{width}}{cells}')
    lines.append('')
    for name, met in document.get('criterion', {}).items():
        lines.append(f'{name.replace("_", " "):<24}{"yes" if met else "NO"}')
    lines += error_lines(document.get('errors', []))
    return '\n'.join(lines)


def _figures(shares: Shares, chunks: int) -> dict[str, Any]:
    kept, patches = int(shares.kept.sum()), int(shares.patches.sum())
    kept_share, patches_share = shares.kept_share, shares.patches_share
    return {
        'mean_kept_tokens': round(kept / max(chunks, 1), 3),
        'tokens': patches / max(chunks, 1),
        'kept_share': round(kept / max(patches, 1), 5),
        'on_task': {
            'kept': round(shares.kept_on_task, 5),
            'image': round(shares.patches_on_task, 5),
        },
        'by_role': {
            role: {'kept': round(kept_share[role], 5), 'image': round(patches_share[role], 5)}
            for role in ROLES
        },
    }


def _together(records: Sequence[ConcentrationRecord]) -> dict[str, Shares]:
    cameras = dict.fromkeys(name for record in records for name in record.shares)
    return {name: sum_of([record.shares[name] for record in records]) for name in cameras}


def _line(record: ConcentrationRecord) -> dict[str, Any]:
    found = figures(record.shares)
    names = ('chunks', 'mean_kept_tokens', 'kept_share', 'on_task')
    outcome = {'success': record.success, 'steps': record.steps}
    return {**vars(record.spec), **outcome, **{name: found[name] for name in names}}
