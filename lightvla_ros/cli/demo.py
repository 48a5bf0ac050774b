"""`lightvla demo`: runs episodes in LIBERO through the real ROS graph."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from lightvla_ros.cli.arguments import (
    add_render,
    add_suite,
    check_episodes,
    expand_suites,
    parse_count,
    parse_range,
)
from lightvla_ros.errors import ArgumentError
from lightvla_ros.files import BUNDLED_POLICY, resource
from lightvla_ros.sim.episode import CONTROLLERS

if TYPE_CHECKING:
    from lightvla_ros.nodes.demo.report import DemoOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `lightvla demo`."""
    who = parser.add_mutually_exclusive_group()
    who.add_argument(
        '--policy', type=Path, metavar='DIR', help='policy folder; default: the bundled one'
    )
    who.add_argument(
        '--replay', action='store_true', help='replay the scripted expert instead of a policy'
    )
    add_suite(parser)
    parser.add_argument(
        '--tasks',
        type=parse_range,
        default=(1, 2),
        metavar='A-B',
        help='tasks, such as 0-9 or 0,3; default: 1,2',
    )
    parser.add_argument(
        '--inits',
        type=parse_range,
        default=(0,),
        metavar='A-B',
        help='saved initial states; default: 0',
    )
    parser.add_argument('--episodes', type=parse_count, metavar='N', help='run at most N episodes')
    parser.add_argument(
        '--mode',
        choices=('lockstep', 'wall_clock'),
        default='lockstep',
        help='whether the simulated robot waits for the policy; a replay needs lockstep',
    )
    parser.add_argument(
        '--controller',
        choices=CONTROLLERS,
        default='osc',
        help='osc: LIBERO executes the chunks; crisp: the chunk executor does, with the law of '
        'crisp_controllers and the hand of a real Franka; servo: so, by the rules of MoveIt Servo; '
        'default: osc',
    )
    add_render(parser)
    parser.add_argument(
        '--video',
        action=argparse.BooleanOptionalAction,
        help='write a video per episode, which takes time; default: yes, but not with --replay',
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('out/demo'),
        metavar='DIR',
        help='folder of the report and the videos; default: out/demo',
    )


def run(parsed: argparse.Namespace) -> int:
    """Run the episodes, and write videos and a report.

    :raises ArgumentError: See :func:`options_from`.
    """
    options = options_from(parsed)
    from lightvla_ros.nodes.demo.run import run_demo

    return run_demo(options)


def options_from(arguments: argparse.Namespace) -> DemoOptions:
    """Turn parsed arguments into options.

    :raises ArgumentError: When they contradict each other, or LIBERO has no such episodes.
    """
    from lightvla_ros.nodes.demo.report import DemoOptions
    from lightvla_ros.sim.episode import EpisodeSpec

    if arguments.replay and arguments.mode != 'lockstep':
        raise ArgumentError('--replay needs --mode lockstep, because only lockstep is reproducible')
    if arguments.replay and arguments.controller != 'osc':
        raise ArgumentError('--replay needs --controller osc, with which it was recorded')
    suites = expand_suites(arguments.suite)
    check_episodes(suites, arguments.tasks, arguments.inits)
    specs = tuple(
        EpisodeSpec(suite, task, init)
        for suite in suites
        for task in arguments.tasks
        for init in arguments.inits
    )[: arguments.episodes]
    return DemoOptions(
        out=arguments.out,
        policy=None if arguments.replay else arguments.policy or resource(BUNDLED_POLICY),
        replays=specs if arguments.replay else (),
        episodes=() if arguments.replay else specs,
        video=not arguments.replay if arguments.video is None else arguments.video,
        render=arguments.render,
        mode=arguments.mode,
        controller=arguments.controller,
    )
