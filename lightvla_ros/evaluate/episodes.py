"""Options and conditions of an evaluation, and the record of each of its episodes."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lightvla_ros.errors import ArgumentError
from lightvla_ros.evaluate.compared_engine import parse_prune
from lightvla_ros.sim.closed_loop import Environments
from lightvla_ros.sim.episode import EpisodeSpec


@dataclass(frozen=True)
class Conditions:
    """Everything that can change an outcome; results with different conditions are not merged.

    :param pruning: ``on``, or ``off``: the same weights with every visual token.
    :param ablation: ``none``, or how the kept tokens are replaced: ``random``, ``fixed``, ``more``
        or ``fewer`` (``chosen_tokens.py``).
    :param ablation_seed: Seed of ``ablation``, and of methods of ``prune`` that draw.
    :param prune: ``NAME:K``, a method of ``vla/compared`` that keeps K patches instead of the
        policy's own pruning; None for the latter.
    :param through: ``direct`` or ``ros``.
    :param render: ``cheap`` or ``standard``.
    :param replan: Executed steps of each chunk; None for all of them.
    :param max_steps: Limit of steps, shorter than the suite's; None for the suite's.
    :param engine: Engine; ``torch`` and ``torch-cuda`` run the model itself, the others its graphs.
    :param provider: Execution provider of ONNX Runtime.
    :param precision: Precision of an engine that has a choice; None for its default.
    :param compiled: Whether ``torch-cuda`` compiles its blocks.
    :param controller: What moves the arm: ``osc``, LIBERO's own, or ``crisp``, through ROS.
    :param threads: Threads of the engine and of preprocessing.
    :param camera_size: Height and width of rendered images [px].
    """

    pruning: str = 'on'
    ablation: str = 'none'
    ablation_seed: int = 0
    prune: str | None = None
    through: str = 'direct'
    render: str = 'cheap'
    replan: int | None = None
    max_steps: int | None = None
    engine: str = 'onnxruntime'
    provider: str = 'CPUExecutionProvider'
    precision: str | None = None
    compiled: bool = True
    controller: str = 'osc'
    threads: int = 1
    camera_size: int = 256

    def environments(self) -> Environments:
        """Return the environments of episodes under these conditions. The caller closes them."""
        return Environments(self.camera_size, self.render, self.max_steps)

    def check(self, chunk_length: int) -> None:
        """Refuse conditions that contradict each other.

        :param chunk_length: Steps in a chunk of the policy.
        :raises ArgumentError: Naming the option.
        """
        if self.replan is not None and not 1 <= self.replan <= chunk_length:
            raise ArgumentError(
                f'--replan {self.replan}: a chunk of this policy has {chunk_length} steps; give a '
                f'number from 1 to {chunk_length}'
            )
        if self.pruning == 'off' and self.ablation != 'none':
            raise ArgumentError('--pruning off keeps every token; leave out --ablation')
        if self.prune is not None:
            parse_prune(self.prune)
            if self.engine != 'torch':
                raise ArgumentError('--prune is in PyTorch alone; add --engine torch')
            if self.pruning == 'off' or self.ablation != 'none':
                raise ArgumentError('--prune replaces the pruner; leave out --pruning, --ablation')
        if self.through == 'direct' and self.controller != 'osc':
            raise ArgumentError(
                f'--controller {self.controller} is commanded by the chunk executor; '
                'add --through ros'
            )
        if self.through == 'ros':
            # The node runs the exported graphs, and the bridge executes whole chunks up to the
            # suite's limit, so these options would have no effect there.
            for name, differs in (
                ('--pruning off', self.pruning == 'off'),
                ('--ablation', self.ablation != 'none'),
                ('--replan', self.replan not in (None, chunk_length)),
                ('--max-steps', self.max_steps is not None),
                ('--engine torch', self.engine == 'torch'),
            ):
                if differs:
                    raise ArgumentError(f'{name} needs --through direct')

    def as_dict(self) -> dict[str, Any]:
        """Return all fields, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class EvalOptions:
    """One call of ``lightvla eval``.

    :param specs: The requested episodes, of all shards.
    :param shard: Number of this shard, from 1, and number of all shards.
    :param out: The JSON file of the result; the journal is stored beside it.
    """

    policy: Path
    specs: tuple[EpisodeSpec, ...]
    conditions: Conditions
    out: Path
    shard: tuple[int, int] = (1, 1)
    workers: int = 1

    @property
    def wanted(self) -> tuple[EpisodeSpec, ...]:
        """The episodes of this shard."""
        return shard_of(self.specs, *self.shard)


def shard_of(specs: tuple[EpisodeSpec, ...], part: int, parts: int) -> tuple[EpisodeSpec, ...]:
    """Return one part of the episodes, counted from 1.

    Each part holds consecutive episodes, so that it builds few environments. Every episode is in
    exactly one part.
    """
    return specs[len(specs) * (part - 1) // parts : len(specs) * part // parts]


def pieces(specs: list[EpisodeSpec], workers: int) -> list[list[EpisodeSpec]]:
    """Cut episodes into pieces for workers: each of one task, and at least one piece per worker."""
    by_task: dict[tuple[str, int], list[EpisodeSpec]] = {}
    for spec in specs:
        by_task.setdefault((spec.suite, spec.task), []).append(spec)
    # building an environment takes as long as half an episode, so there are no more parts than
    # needed
    parts = -(-workers // max(len(by_task), 1))
    cut = [
        list(shard_of(tuple(group), part, parts))
        for group in by_task.values()
        for part in range(1, parts + 1)
    ]
    return [piece for piece in cut if piece]


@dataclass(frozen=True)
class EpisodeRecord:
    """One episode. With an ``error`` nothing was measured, and ``success`` is None.

    :param steps: Steps after settling, up to success or the limit.
    :param seconds: Wall-clock time, without building the environment.
    :param end_state: Digest of all joint positions at the end, to compare the ends of two runs.
    :param motion: See ``sim.motion.MotionLog.figures``; empty in results of older releases.
    :param kept: Kept visual tokens of every chunk, by camera.
    :param latency_ms: Time of preprocessing, encode and act, for every chunk.
    """

    suite: str
    task: int
    init_state: int
    seed: int
    instruction: str = ''
    success: bool | None = None
    steps: int = 0
    seconds: float = 0.0
    error: str = ''
    renderer: str = ''
    end_state: str = ''
    motion: dict[str, float] = field(default_factory=dict)
    kept: dict[str, list[int]] = field(default_factory=dict)
    latency_ms: list[float] = field(default_factory=list)

    @property
    def spec(self) -> EpisodeSpec:
        """The episode's suite, task, initial state and seed."""
        return EpisodeSpec(self.suite, self.task, self.init_state, self.seed)

    @property
    def kept_totals(self) -> list[int]:
        """Kept visual tokens of every chunk, all cameras together."""
        return [sum(counts) for counts in zip(*self.kept.values(), strict=True)]

    def as_dict(self) -> dict[str, Any]:
        """Return all fields and the mean of the kept tokens, for JSON."""
        totals = self.kept_totals
        mean = round(sum(totals) / len(totals), 3) if totals else None
        return {**asdict(self), 'kept_mean': mean}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> EpisodeRecord:
        """Make a record from the fields of :meth:`as_dict`.

        :raises TypeError: When there are other fields.
        """
        return cls(**{key: value for key, value in fields.items() if key != 'kept_mean'})


def failed_record(spec: EpisodeSpec, error: str) -> EpisodeRecord:
    """Return the record of an episode that could not be completed."""
    return EpisodeRecord(**vars(spec), error=error)


def state_digest(positions: np.ndarray) -> str:
    """Return 16 hex digits that differ when any bit of the joint positions does."""
    return hashlib.sha256(np.ascontiguousarray(positions).tobytes()).hexdigest()[:16]


def error_lines(errors: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line for each of the first five errors of a result.

    :param errors: Fields of the episodes, and ``error``.
    """
    spec = operator.itemgetter('suite', 'task', 'init_state', 'seed')
    return [f'ERROR         {EpisodeSpec(*spec(each))}: {each["error"]}' for each in errors[:5]]
