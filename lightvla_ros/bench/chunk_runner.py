"""Runs an engine on chunks with a given number of visual tokens, and times each of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lightvla_ros.bench.timing import rotated
from lightvla_ros.engine.base import Engine, smallest_bucket
from lightvla_ros.policy.observation import Observation
from lightvla_ros.policy.policy import Policy


@dataclass(frozen=True)
class ChunkTimes:
    """Seconds of one chunk.

    :param host: Time of engine and bucket choice outside the graphs; None if unknown.
    """

    encode: float
    act: float
    host: float | None


class ChunkRunner:
    """One engine of a policy.

    :param name: Of the engine, as :func:`lightvla_ros.engine.load_engine` knows it.
    :param kept: Visual tokens of a pruned chunk, K.
    """

    def __init__(self, name: str, policy: Policy, observation: Observation, kept: int) -> None:
        self.name = name
        self.engine: Engine = policy.engine
        buckets = policy.manifest.tokens.buckets
        # PyTorch needs no bucket and runs K tokens: the comparison must not take that from it
        self.pruned = kept if name == 'torch' else smallest_bucket(buckets, kept)
        self.sizes = tuple(sorted({self.pruned, *buckets}))
        self._clock = GraphClock(self.engine)
        self._policy, self._observation = policy, observation
        self._inputs = policy.prepare(observation)

    def turn(self, number: int) -> dict[int, ChunkTimes]:
        """Time a chunk of every size; each round begins with another size.

        A chunk that is not counted comes first, because other engines have used the caches and
        their threads may still spin.
        """
        self.time(self.pruned)
        return {size: self.time(size) for size in rotated(self.sizes, number)}

    def time_prepare(self, _: int) -> float:
        """Return the seconds that preprocessing takes."""
        started = time.perf_counter()
        self._policy.prepare(self._observation)
        return time.perf_counter() - started

    def time(self, size: int) -> ChunkTimes:
        """Run a chunk with ``size`` visual tokens, whatever the pruner would keep."""
        clock = self._clock
        graphs = clock.seconds
        with _keeping(self.engine, size):
            started = time.perf_counter()
            encoded = self.engine.encode(*self._inputs)
            encoded_at = time.perf_counter()
            self.engine.act(encoded, size)
            acted = time.perf_counter()
            self.engine.kept_patches(encoded)
            finished = time.perf_counter()
        host = finished - started - (clock.seconds - graphs) if clock.runs else None
        return ChunkTimes(encoded_at - started, acted - encoded_at, host)

    def close(self) -> None:
        """Free the engine."""
        self.engine.close()


@contextmanager
def _keeping(engine: Engine, size: int) -> Iterator[None]:
    """Have PyTorch's pruner keep ``size`` tokens; the other engines run as many as they are told.

    Which tokens they are makes no difference in time.
    """
    model = getattr(engine, 'model', None)
    if model is None or model.config.pruning.method == 'off':
        yield
        return
    import torch

    from lightvla_ros.vla.ablation import ablated

    with ablated(model, lambda kept: (torch.arange(kept.shape[1]) < size).expand_as(kept)):
        yield


class GraphClock:
    """Seconds that an engine's graphs have taken so far; what a call takes besides, the host adds.

    The difference of two medians would drown in the noise of the graphs, thousands of times as long
    as the host's work. So the library's own execution call is timed inside the engine's call. For
    that its objects, which are private to the engine, are replaced: no engine should offer such a
    hook to a robot.

    :param engine: From now on its executions are timed.
    """

    def __init__(self, engine: Engine) -> None:
        self.seconds = 0.0
        self.runs = True
        if engine.backend.startswith('onnxruntime'):
            for name in ('_encode', '_act'):
                session = _Timed(getattr(engine, name), self, ('run_with_iobinding',))
                setattr(engine, name, session)
        elif engine.backend.startswith('openvino'):
            calls = ('start_async', 'wait')
            engine._encode = [_Timed(each, self, calls) for each in engine._encode]
            engine._act_requests = {
                bucket: _Timed(each, self, calls) for bucket, each in engine._act_requests.items()
            }
        else:
            self.runs = False  # eager PyTorch has no graph, and TensorRT's run beside the host


class _Timed:
    """Wraps an object and adds the time of some of its calls to a clock."""

    def __init__(self, wrapped: Any, clock: GraphClock, calls: tuple[str, ...]) -> None:
        self._wrapped = wrapped
        self._clock = clock
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._wrapped, name)
        if name not in self._calls:
            return attribute

        def call(*arguments: Any) -> Any:
            started = time.perf_counter()
            try:
                return attribute(*arguments)
            finally:
                self._clock.seconds += time.perf_counter() - started

        return call
