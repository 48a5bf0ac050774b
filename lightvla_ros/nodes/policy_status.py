"""The policy node's diagnostics: its cameras, its engine, its inferences and its output."""

from __future__ import annotations

from collections.abc import Mapping

from diagnostic_msgs.msg import DiagnosticStatus

from lightvla_ros.contract import Manifest
from lightvla_ros.engine.base import Engine
from lightvla_ros.msg import VlaStatus
from lightvla_ros.nodes.policy_statistics import ChunkStatistics
from lightvla_ros.nodes.recorder import NoRecorder, Recorder
from lightvla_ros.nodes.status_report import StatusReport, diagnostic
from lightvla_ros.policy.familiarity import ALARMING, Score


def policy_diagnostics(
    node: str,
    report: StatusReport,
    manifest: Manifest | None,
    engine: Engine | None,
    statistics: ChunkStatistics,
    inputs: Mapping[str, int],
    input_fault: str,
    advice: str,
    failures: int,
    recorder: NoRecorder,
) -> list[DiagnosticStatus]:
    """Return one status for each part of the policy node.

    :param node: Fully qualified name of the node.
    :param inputs: Counts of received messages, by what was done with them.
    :param input_fault: The reason why there is no observation; empty when there is none.
    :param advice: What to do about missing inputs.
    :param failures: Failed inferences in a row.
    :param recorder: Its status is there only if something is recorded.
    """
    ok, warn, error = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
    policy = f'{manifest.name} {manifest.fingerprint[:12]}' if manifest else ''
    if input_fault:
        inputs = {**inputs, 'advice': advice}
    faulty = report.state == VlaStatus.FAULT
    engine_level = error if faulty else warn if failures or engine is None else ok
    found = [
        diagnostic(node, 'cameras', error if input_fault else ok, input_fault, inputs),
        diagnostic(
            node,
            'engine',
            engine_level,
            report.reason if faulty else engine.backend if engine else 'not loaded',
            {'failures_in_a_row': failures, 'policy': policy},
        ),
        diagnostic(node, 'inference', engine_level, '', statistics.summary()),
        diagnostic(node, 'output', report.level, report.line, statistics.counts),
        _familiarity(node, manifest, statistics.score),
    ]
    if isinstance(recorder, Recorder):
        dropped = recorder.dropped.total()
        said = recorder.fault or (f'{dropped} messages were not recorded' if dropped else '')
        level = warn if said else ok
        found.append(diagnostic(node, 'recording', level, said, recorder.figures()))
    return found


def _familiarity(node: str, manifest: Manifest | None, score: Score | None) -> DiagnosticStatus:
    """Return what the alarm says of the last observation, with its parts."""
    if score is None:
        calibrated = manifest is not None and manifest.familiarity is not None
        said = 'no observation yet' if calibrated else 'not calibrated'
        return diagnostic(node, 'familiarity', DiagnosticStatus.OK, said, {})
    parts = {
        name: f'{part:.2f} ({score.values[name]:.3g})'
        for name, part in sorted(score.parts.items(), key=lambda pair: -pair[1])
    }
    level = DiagnosticStatus.WARN if score.total > ALARMING else DiagnosticStatus.OK
    values = {'score': f'{score.total:.2f}', **parts}
    return diagnostic(node, 'familiarity', level, f'score {score}', values)
