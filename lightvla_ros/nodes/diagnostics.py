"""Diagnostics at 1 Hz in the standard format, so that rqt_robot_monitor and others show them.

``diagnostic_updater`` is not used: its timers run on ROS time and freeze with the simulator.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

HISTORY = 512


class StageHistory:
    """The last durations of each stage, in seconds."""

    def __init__(self) -> None:
        self._stages: dict[str, deque[float]] = {}

    def add(self, **seconds: float) -> None:
        """Append one chunk's durations by stage."""
        for stage, value in seconds.items():
            self._stages.setdefault(stage, deque(maxlen=HISTORY)).append(value)

    def milliseconds(self, stage: str) -> np.ndarray:
        """All remembered durations of one stage [ms], oldest first."""
        return 1e3 * np.array(self._stages.get(stage, ()))

    def summary(self) -> dict[str, str]:
        """``<stage>_ms`` -> 'p50 p95 max' of each stage."""
        return {
            f'{stage}_ms': 'p50 {:.2f}  p95 {:.2f}  max {:.2f}'.format(
                *np.percentile(self.milliseconds(stage), (50, 95, 100))
            )
            for stage in self._stages
        }


def diagnostic(
    node: str, part: str, level: bytes, message: str, values: Mapping[str, Any]
) -> DiagnosticStatus:
    """Build one status.

    :param node: Fully qualified name, so that two robots' statuses can be told apart.
    :param level: One of DiagnosticStatus.OK, WARN, ERROR, STALE.
    """
    return DiagnosticStatus(
        level=level,
        name=f'{node}: {part}',
        message=message,
        hardware_id=node,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )
