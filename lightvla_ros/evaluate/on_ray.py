"""An evaluation's shards as Ray tasks. Untested: Ray is not installed where this was written."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lightvla_ros.errors import EvaluationError
from lightvla_ros.evaluate.evaluation import evaluate
from lightvla_ros.evaluate.merge import merge
from lightvla_ros.evaluate.options import EvalOptions
from lightvla_ros.evaluate.summary import write_document


def evaluate_on_ray(options: EvalOptions, shards: int) -> dict[str, Any]:
    """Run each shard as a task, merge their results, write and return that.

    Every machine must see policy and result under the same absolute path. Each shard has a result
    and a journal of its own there, so that what was finished is not run again.

    :raises EvaluationError: When Ray is not installed.
    """
    try:
        import ray
    except ModuleNotFoundError:
        raise EvaluationError('--ray needs Ray: pip install ray') from None
    policy, out = options.policy.resolve(), options.out.resolve()
    parts = [
        replace(
            options,
            policy=policy,
            out=out.with_name(f'{out.stem}.shard-{part}-of-{shards}.json'),
            shard=(part, shards),
        )
        for part in range(1, shards + 1)
    ]
    ray.init(ignore_reinit_error=True)
    task = ray.remote(num_cpus=options.workers * options.conditions.threads)(evaluate)
    ray.get([task.remote(part) for part in parts])
    document = merge([part.out for part in parts])
    write_document(out, document)
    return document
