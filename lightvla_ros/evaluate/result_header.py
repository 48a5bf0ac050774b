"""What the results of ``lightvla show`` and ``lightvla listen`` begin with."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from lightvla_ros.contract import Manifest
from lightvla_ros.evaluate.evaluation import header_of
from lightvla_ros.evaluate.options import EvalOptions
from lightvla_ros.machine import machine


def result_header(options: EvalOptions, manifest: Manifest) -> dict[str, Any]:
    """Return policy, conditions, versions, machine and date, for JSON."""
    return {
        **header_of(options, manifest),
        'machine': machine(),
        'date': datetime.now(UTC).isoformat(timespec='seconds'),
    }
