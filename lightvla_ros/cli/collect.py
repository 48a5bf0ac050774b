"""`lightvla collect`: collects demonstrations in LIBERO, in one process per core.

Run it again to continue where it stopped. ``models/collect.py`` also runs this command.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from pathlib import Path
from queue import Empty, Queue
from typing import TYPE_CHECKING

from lightvla_ros.cli.arguments import (
    add_render,
    check_episodes,
    number,
    parse_count,
    parse_range,
    parse_seed,
)
from lightvla_ros.contract import load_manifest
from lightvla_ros.contract.suites import EXPERT_SUITES
from lightvla_ros.errors import ArgumentError, sentence
from lightvla_ros.files import one_writer
from lightvla_ros.sim.distractor import SUITE

if TYPE_CHECKING:
    from lightvla_ros.collect.recorder import CollectPlan

SILENCE = 600.0  # s without an episode, after which a worker is taken for killed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``lightvla collect``."""
    parser.set_defaults(stopped='stopped; run the same command again to continue')
    parser.add_argument(
        '--out', type=Path, required=True, metavar='DIR', help='folder of the demonstrations'
    )
    parser.add_argument(
        '--suite',
        nargs='+',
        choices=EXPERT_SUITES,
        default=EXPERT_SUITES,
        help=f'suites of tasks; default: {" and ".join(EXPERT_SUITES)}',
    )
    parser.add_argument(
        '--tasks',
        type=parse_range,
        default=parse_range('0-9'),
        metavar='A-B',
        help='tasks, such as 0-9 or 0,3; default: 0-9',
    )
    parser.add_argument(
        '--episodes',
        type=parse_count,
        default=60,
        metavar='N',
        help='successful episodes of each task; default: 60',
    )
    parser.add_argument(
        '--first-seed',
        type=parse_seed,
        metavar='N',
        help='seed of the first layout of a task; default: 100000, with --policy 200000',
    )
    parser.add_argument(
        '--stride',
        type=parse_count,
        default=2,
        metavar='N',
        help='steps between two pictures; default: 2',
    )
    parser.add_argument(
        '--others',
        type=number(0, 1),
        default=0.4,
        metavar='X',
        help='share of episodes asked for another object of the scene; default: 0.4',
    )
    parser.add_argument(
        '--looks',
        type=number(0, 1),
        default=0.0,
        metavar='X',
        help='share of episodes with other colours of things and other light; default: 0',
    )
    parser.add_argument(
        '--exchanged',
        type=number(0, 1),
        default=0.0,
        metavar='X',
        help='share of episodes in which the target and another thing have exchanged places; in '
        'LIBERO-Object the requested object and another; default: 0',
    )
    parser.add_argument(
        '--distractor',
        action='store_true',
        help='one thing more stands somewhere on the table of LIBERO-Spatial, in each task another '
        'one, drawn by the first seed',
    )
    parser.add_argument(
        '--fixtures',
        type=parse_seed,
        metavar='N',
        help='seed of the fixtures beside which three in four layouts stand, such as 0, that of '
        'evaluations on saved states; default: others for each layout',
    )
    add_render(parser)
    parser.add_argument(
        '--policy',
        type=Path,
        metavar='DIR',
        help='a policy that moves the robot while the expert labels what it sees (DAgger)',
    )
    parser.add_argument(
        '--workers',
        type=parse_count,
        default=os.cpu_count(),
        metavar='N',
        help='processes, 2 GB each; default: one per core',
    )


def run(parsed: argparse.Namespace) -> int:
    """Collect.

    :returns: 0; 1 when a task could not be finished.
    :raises ArgumentError: When LIBERO lacks what was asked for.
    """
    check_episodes(parsed.suite, parsed.tasks)
    if parsed.distractor and set(parsed.suite) != {SUITE}:
        raise ArgumentError(f'--distractor is for LIBERO-Spatial; add --suite {SUITE}')
    if parsed.policy is not None:
        load_manifest(
            parsed.policy
        )  # a fault of the folder is better known before scenes are built
    from lightvla_ros.collect.recorder import CollectPlan

    first_seed = parsed.first_seed
    if first_seed is None:  # a policy drives in layouts on which it was not trained
        first_seed = 100_000 if parsed.policy is None else 200_000
    plan = CollectPlan(
        parsed.out,
        parsed.episodes,
        first_seed,
        parsed.stride,
        parsed.others,
        parsed.looks,
        render=parsed.render,
        policy=parsed.policy,
        fixtures=parsed.fixtures,
        exchanged=parsed.exchanged,
        distractor=parsed.distractor,
    )
    # a process per core: libraries must not start threads of their own (read when they load)
    os.environ |= dict.fromkeys(('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS'), '1')
    os.environ['LP_NUM_THREADS'] = '0'  # llvmpipe draws in the calling thread
    jobs = [(plan, suite, task) for task in parsed.tasks for suite in parsed.suite]
    with one_writer(parsed.out):
        errors = collect(jobs, parsed.workers)
    for error in errors:
        print(f'lightvla collect: {error}', file=sys.stderr)
    return int(bool(errors))


def collect(jobs: list[tuple[CollectPlan, str, int]], workers: int) -> list[str]:
    """Run each job in its own process, with one progress bar for all episodes.

    :returns: A line for each task that could not be finished.
    """
    from tqdm import tqdm

    context = multiprocessing.get_context('spawn')  # a rendering context does not survive a fork
    news = context.Manager().Queue()
    total = sum(plan.episodes for plan, _, _ in jobs)
    frames = failed = 0
    errors: list[str] = []
    with context.Pool(workers, maxtasksperchild=1) as pool, tqdm(total=total, unit='ep') as bar:
        for job in jobs:
            pool.apply_async(_work, (news, *job))
        running = len(jobs)
        while running:
            try:
                message = news.get(timeout=SILENCE)
            except Empty:
                errors.append(
                    f'no episode has finished for {SILENCE:.0f} s, so a worker was probably killed '
                    '(out of memory? each takes 2 GB); run the same command again to continue'
                )
                break
            if message is None:
                running -= 1
            elif isinstance(message, str):
                errors.append(message)
            else:
                episodes, seen = message
                frames, failed = frames + seen, failed + (not episodes)
                bar.set_postfix(frames=frames, failed=failed)
                bar.update(episodes)
    return errors


def _work(news: Queue, plan: CollectPlan, suite: str, task: int) -> None:
    from lightvla_ros.collect.collect import collect_task

    try:
        for message in collect_task(plan, suite, task):
            news.put(message)
    except Exception as error:
        news.put(f'{suite} task {task}: {sentence(error)}')
    finally:
        news.put(None)
