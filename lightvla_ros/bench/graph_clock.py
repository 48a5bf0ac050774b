"""How much of a call the graphs themselves take, and so how much the host adds.

The difference of two medians would drown in the noise of the graphs, thousands of times as long as
the host's work. So the library's own execution call is timed inside the engine's call. For that its
objects, which are private to the engine, are replaced: no engine should offer such a hook to a
robot.
"""

from __future__ import annotations

import time
from typing import Any

from lightvla_ros.engine.base import Engine


class GraphClock:
    """Seconds that an engine's graphs have taken so far.

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
    """Another object, whose calls of some names are added to a clock."""

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
