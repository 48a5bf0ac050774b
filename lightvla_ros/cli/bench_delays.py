"""`lightvla bench delays`: measures episodes whose observations come late."""

from __future__ import annotations

import argparse
from pathlib import Path

from lightvla_ros.cli.arguments import (
    add_episodes,
    add_render,
    add_seed,
    add_suite,
    chosen_episodes,
    number,
    parse_range,
)
from lightvla_ros.files import BUNDLED_POLICY, resource

DELAYS, HORIZONS = (0, 50, 100, 200, 400), (8, 4, 2)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``lightvla bench delays``."""
    parser.set_defaults(stopped='stopped; run the same command again to continue')
    parser.add_argument(
        '--policy', type=Path, metavar='DIR', help='policy folder; default: the bundled one'
    )
    parser.add_argument(
        '--json',
        type=Path,
        required=True,
        metavar='FILE',
        help='file for the result, with FILE.png beside it; the journal, FILE with .jsonl, is '
        'resumed if it exists',
    )
    for name, unit, what, default in (
        ('delay', 'MS', 'delays of the observations [ms]', DELAYS),
        ('horizon', 'N', 'steps between two observations and two chunks', HORIZONS),
    ):
        parser.add_argument(
            f'--{name}',
            type=parse_range,
            default=default,
            metavar=unit,
            help=f'{what}, such as {",".join(map(str, default))}; default: these',
        )
    parser.add_argument(
        '--variant',
        nargs='+',
        choices=('plain', 'roll_state', 'blended', 'both'),
        default=['plain', 'roll_state', 'blended', 'both'],
        help="roll_state of the policy node, the executor's blended 2, or both; default: all",
    )
    parser.add_argument(
        '--jitter',
        type=parse_range,
        default=(0,),
        metavar='MS',
        help='at most so much more delay, drawn for each observation [ms]; default: 0',
    )
    parser.add_argument(
        '--loss',
        type=number(0, 0.9),
        default=0.0,
        metavar='P',
        help='share of the observations that are lost; default: 0',
    )
    add_suite(parser, default='libero_object')
    add_episodes(parser, tasks='0-9', inits='0')
    add_seed(parser)
    add_render(parser)
    parser.add_argument(
        '--real-time-factor',
        type=number(0.01, 10.0),
        default=0.2,
        metavar='F',
        help='speed of simulated time; lower it if control periods overrun; default: 0.2',
    )


def run(parsed: argparse.Namespace) -> int:
    """Run the episodes that the journal lacks, draw the plot and print the table."""
    from lightvla_ros.evaluate.evaluate import journal_path
    from lightvla_ros.nodes.demo.bench_delays import DelayOptions, measure
    from lightvla_ros.nodes.demo.delay_report import Point, table
    from lightvla_ros.show.plots import write_delays

    journal_path(parsed.json)  # refuses another ending
    options = DelayOptions(
        policy=parsed.policy or resource(BUNDLED_POLICY),
        points=tuple(
            Point(delay, horizon, variant, jitter, parsed.loss)
            for horizon in parsed.horizon
            for variant in dict.fromkeys(parsed.variant)
            for delay in parsed.delay
            for jitter in parsed.jitter
        ),
        episodes=chosen_episodes(parsed, [parsed.suite], tuple(range(10)), (0,)),
        out=parsed.json,
        real_time_factor=parsed.real_time_factor,
        render=parsed.render,
    )
    document = measure(options)
    write_delays(document, parsed.json.with_suffix('.png'))
    print(table(document['points']))
    return 0
