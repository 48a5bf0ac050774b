"""`lightvla bench methods`: the time of a chunk with each compared method."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from lightvla_ros.cli.arguments import parse_count
from lightvla_ros.files import write_text

if TYPE_CHECKING:
    from lightvla_ros.bench.methods import Method


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        '--policy',
        type=Path,
        required=True,
        metavar='DIR',
        help='policy folder with weights: the first row, with its own pruning',
    )
    parser.add_argument(
        '--observations',
        type=Path,
        nargs='+',
        required=True,
        metavar='FILE.npz',
        help='episodes of lightvla alarm observe, whose chunks are computed in turn',
    )
    parser.add_argument(
        '--prune',
        nargs='+',
        default=[],
        metavar='NAME:K',
        help='methods on --policy instead of its own pruning, as in lightvla eval',
    )
    parser.add_argument(
        '--beside',
        type=Path,
        nargs='+',
        default=[],
        metavar='DIR',
        help='more policies, each with its own pruning',
    )
    parser.add_argument(
        '--exported',
        type=Path,
        nargs='+',
        default=[],
        metavar='DIR',
        help='exported policies, on ONNX Runtime',
    )
    parser.add_argument(
        '--rounds', type=parse_count, default=100, metavar='N', help='chunks of each; default: 100'
    )
    parser.add_argument(
        '--threads', type=parse_count, default=1, metavar='N', help='threads; default: 1'
    )
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures')


def run(parsed: argparse.Namespace) -> int:
    """Measure and print."""
    from lightvla_ros.bench.methods import measure_methods
    from lightvla_ros.bench.report import method_report

    rows = _rows(parsed.policy, 'torch', parsed.prune, parsed)
    for folder in parsed.beside:
        rows += _rows(folder, 'torch', [], parsed)
    for folder in parsed.exported:
        rows += _rows(folder, 'onnxruntime', [], parsed)
    document = measure_methods(rows, parsed.rounds, parsed.threads)
    if parsed.json is not None:
        write_text(parsed.json, json.dumps(document, indent=2) + '\n')
    print(method_report(document))
    return 0


def _rows(
    folder: Path, engine_name: str, prune: list[str], parsed: argparse.Namespace
) -> list[Method]:
    """Return the row of a policy, and those of methods on it."""
    from lightvla_ros.bench.methods import Method
    from lightvla_ros.evaluate.compared_engine import ComparedEngine
    from lightvla_ros.export.observations import read_observations
    from lightvla_ros.policy.observation import observations
    from lightvla_ros.policy.policy import Policy
    from lightvla_ros.sim.episode import EpisodeSpec

    policy = Policy.load(folder, engine_name, parsed.threads, unchecked=True)
    manifest = policy.manifest
    state = 0 if manifest.proprio is None else manifest.proprio.size
    episodes = [
        observations(manifest, read_observations(path, len(manifest.cameras), state))
        for path in parsed.observations
    ]
    rows = [Method(str(folder), policy, policy.engine, episodes)]
    for each in prune:
        engine = ComparedEngine(policy.engine, each, 0)

        def start(engine: ComparedEngine = engine) -> None:
            engine.start_episode(EpisodeSpec('libero_object', 0, 0))  # seeds the draws alone

        rows.append(Method(each, policy, engine, episodes, start))
    return rows
