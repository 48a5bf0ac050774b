"""The policy node's counts, and the duration of each stage of its last chunks."""

from __future__ import annotations

from collections import deque

import numpy as np

from lightvla_ros.contract import Manifest
from lightvla_ros.nodes.policy_inputs import Result
from lightvla_ros.policy.familiarity import Score
from lightvla_ros.runtime.inbox import Job
from lightvla_ros.summary_statistics import percentiles

HISTORY = 512  # chunks


class ChunkStatistics:
    """Counts the outcomes of inferences, and keeps the durations of the last chunks.

    :ivar counts: By name; also the number of tokens that the last chunk kept per camera, and how
        often each number of the state was outside the policy's bounds.
    :ivar score: What the alarm said of the last observation; None before, and if not calibrated.
    """

    def __init__(self) -> None:
        self.counts = dict.fromkeys(('sent', 'clamped', 'discarded', 'failed', 'overruns'), 0)
        self.score: Score | None = None
        self._stages: dict[str, deque[float]] = {}

    def sent(
        self, manifest: Manifest, job: Job, result: Result, clamped: bool, published: int
    ) -> None:
        """Note a chunk with steps.

        :param published: When it was published [ns, steady clock].
        """
        counts, prediction = self.counts, result.prediction
        counts['sent'] += 1
        counts['clamped'] += clamped
        for outside in result.outside:  # within max_state_excess; the policy saw the bound instead
            name = f'outside_{outside.name}'
            counts[name] = counts.get(name, 0) + 1
        for camera, kept in zip(manifest.cameras, prediction.kept, strict=True):
            counts[f'kept_{camera.name}'] = kept
        preprocess = result.decode + prediction.times.preprocess
        total = (published - job.arrived) * 1e-9
        stages = {
            'preprocess': preprocess,
            'encode': prediction.times.encode,
            'act': prediction.times.act,
            'total': total,
            'overhead': total - preprocess - prediction.times.inference,
            'camera_delay': job.delay * 1e-9,
        }
        for stage, seconds in stages.items():
            self._stages.setdefault(stage, deque(maxlen=HISTORY)).append(seconds)

    def milliseconds(self, stage: str) -> np.ndarray:
        """Return the kept durations of one stage [ms], oldest first."""
        return 1e3 * np.array(self._stages.get(stage, ()))

    def summary(self) -> dict[str, str]:
        """Return the percentiles p50, p95 and maximum of each stage as text, by ``<stage>_ms``."""
        return {
            f'{stage}_ms': 'p50 {:.2f}  p95 {:.2f}  max {:.2f}'.format(
                *percentiles(self.milliseconds(stage), ('p50', 'p95', 'max')).values()
            )
            for stage in self._stages
        }
