"""`lightvla doctor`: checks installation and policy, or with `--live` a robot's topics.

Nothing is published and nothing moves.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from lightvla_ros.cli.arguments import add_engine, number
from lightvla_ros.doctor.findings import Finding, document, exit_code, report
from lightvla_ros.engine import ENGINES, options_of
from lightvla_ros.errors import ArgumentError
from lightvla_ros.files import write_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``lightvla doctor``."""
    parser.add_argument(
        'assignments',
        nargs='*',
        metavar='NAME:=VALUE',
        help='with --live: the launch arguments of the node, such as wrist_image:=/cam/image_raw',
    )
    parser.add_argument(
        '--policy', type=Path, metavar='DIR', help='policy folder; without it: the computer alone'
    )
    parser.add_argument('--json', type=Path, metavar='FILE', help='also write the findings as JSON')
    offline = parser.add_argument_group('without --live')
    add_engine(offline, ENGINES, of='the engine')
    live = parser.add_argument_group('with --live')
    live.add_argument(
        '--live', action='store_true', help="listen to the robot's topics and judge them"
    )
    live.add_argument(
        '--robot',
        type=Path,
        metavar='FILE',
        help="an own robot's contract, robot.yaml, which says its topics, frames and fingers",
    )
    live.add_argument(
        '--seconds',
        type=number(1, 600),
        default=5.0,
        metavar='S',
        help='how long to listen; default: 5',
    )
    live.add_argument(
        '--hand', choices=('open', 'closed'), help='how the hand stands now, as you see it'
    )
    live.add_argument(
        '--png',
        type=Path,
        default=Path('out/doctor.png'),
        metavar='FILE',
        help='what arrives beside what the policy was trained on; default: out/doctor.png',
    )


def run(parsed: argparse.Namespace) -> int:
    """Check, and print the report.

    :returns: 1 when a finding is ``fail``, else 0, also with warnings.
    """
    if parsed.live and parsed.policy is None:
        raise ArgumentError('--live needs --policy DIR')
    for given in (*parsed.assignments, *(['--robot'] if parsed.robot else [])):
        if not parsed.live:
            raise ArgumentError(f'{given} has no effect without --live')
    findings = _live(parsed) if parsed.live else _offline(parsed)
    print(report(findings))
    if parsed.json is not None:
        parsed.json.parent.mkdir(parents=True, exist_ok=True)
        write_text(parsed.json, json.dumps(document(findings), indent=1) + '\n')
    return exit_code(findings)


def _offline(parsed: argparse.Namespace) -> Sequence[Finding]:
    from lightvla_ros.doctor.installation import judge_installation
    from lightvla_ros.doctor.policy_folder import judge_engine, judge_folder

    options = options_of(parsed.engine, parsed.provider, parsed.precision, parsed.compiled)
    found = list(judge_installation(parsed.engine, parsed.provider))
    if parsed.policy is not None:
        manifest, of_folder = judge_folder(parsed.policy)
        found += of_folder
        if manifest is not None:
            found.append(judge_engine(parsed.policy, parsed.engine, parsed.threads, **options))
    return found


def _live(parsed: argparse.Namespace) -> Sequence[Finding]:
    import rclpy
    from rclpy.context import Context
    from rclpy.logging import LoggingSeverity, set_logger_level

    from lightvla_ros.contract import load_manifest
    from lightvla_ros.contract.robot import read_robot
    from lightvla_ros.nodes.doctor_node import DoctorNode
    from lightvla_ros.nodes.doctor_report import Question, judge_live
    from lightvla_ros.nodes.launch_arguments import ros_arguments
    from lightvla_ros.policy.golden import references
    from lightvla_ros.runtime.own_robot import assignments

    manifest = load_manifest(parsed.policy)
    recorded = references(parsed.policy, manifest) if manifest.golden is not None else None
    contract = [] if parsed.robot is None else assignments(read_robot(parsed.robot))
    arguments = ros_arguments([*contract, *parsed.assignments])
    context = Context()
    rclpy.init(args=arguments, context=context)
    node = None
    try:
        node = DoctorNode(manifest, arguments, context=context)
        # its findings say what its log lines would
        set_logger_level(node.get_logger().name, LoggingSeverity.FATAL)
        node.listen(parsed.seconds)
        return judge_live(node, Question(parsed.policy, recorded, parsed.hand, parsed.png))
    finally:
        if node is not None:
            node.destroy_node()
        context.try_shutdown()
