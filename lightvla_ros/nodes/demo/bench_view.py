"""`lightvla bench node --view`: what the live page costs the policy node while somebody looks.

The node serves the page all the time. A process of its own looks at it for a while, then does not,
and so on; the node's CPU time is read at both ends of each while. The chunks come at the policy's
own rate, so that the engine's share is the same in both.
"""

from __future__ import annotations

import http.client
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from lightvla_ros.contract import load_manifest
from lightvla_ros.errors import BenchError
from lightvla_ros.machine import machine
from lightvla_ros.nodes.demo.bench_node import PATIENCE, RATE, SIDE, fed_node
from lightvla_ros.nodes.demo.report import reported_versions

WHILE = 10.0  # s
WARM_UP = 5  # chunks
SETTLE = 0.5  # s until the server has noticed that somebody came or went


def measure(policy: Path, seconds: float, threads: int) -> dict[str, Any]:
    """Measure for ``seconds`` in all without, and as long with somebody who looks.

    :returns: Shares of a core, by while, and their differences.
    :raises ContractError: When the policy folder cannot be trusted.
    :raises BenchError: When the node gives no chunks, or the page shows nothing.
    """
    manifest = load_manifest(policy)
    parameters = {'threads': threads, 'view': True, 'view_port': 0}
    rounds = max(1, round(seconds / WHILE))
    alone, watched, events = [], [], 0
    with (
        fed_node(policy, manifest, parameters, WARM_UP) as (node, _),
        _watcher(node.view.url) as look,
    ):
        for _ in range(rounds):
            alone.append(_share(seconds / rounds))
            with look() as seen:
                before = seen()
                watched.append(_share(seconds / rounds))
                events += seen() - before
    costs = np.subtract(watched, alone)
    return {
        'alone': alone,
        'watched': watched,
        'cost': round(float(costs.mean()), 4),
        'cost_min': round(float(costs.min()), 4),
        'cost_max': round(float(costs.max()), 4),
        'events_per_second': round(events / (seconds + rounds * SETTLE), 1),
        'seconds': seconds,
        'threads': threads,
        'machine': machine(),
        'load_average': os.getloadavg()[0],
        'versions': reported_versions(),
    }


def _share(seconds: float) -> float:
    """Return the share of a core that this process takes for so long."""
    time.sleep(SETTLE)
    began, used = time.monotonic(), time.process_time()
    time.sleep(seconds)
    return round((time.process_time() - used) / (time.monotonic() - began), 4)


@contextmanager
def _watcher(url: str) -> Iterator[Callable[[], AbstractContextManager[Callable[[], int]]]]:
    """Start a process that can look at the page; yield the context in which it does.

    That context yields a function that counts the events that have come so far.
    """
    context = multiprocessing.get_context('spawn')
    looking, stop, events = context.Event(), context.Event(), context.Value('i', 0)
    process = context.Process(target=watch, args=(url, looking, stop, events), daemon=True)
    process.start()

    @contextmanager
    def look() -> Iterator[Callable[[], int]]:
        before, deadline = events.value, time.monotonic() + PATIENCE
        looking.set()
        while events.value == before:
            if time.monotonic() > deadline:
                raise BenchError(f'{url}: the page has shown nothing for {PATIENCE:g} s')
            time.sleep(0.05)
        yield lambda: events.value
        looking.clear()

    try:
        yield look
    finally:
        stop.set()
        looking.clear()
        process.join(5.0)


def watch(url: str, looking: Any, stop: Any, events: Any) -> None:
    """Read the page's events while ``looking`` is set, until ``stop`` is (in its own process)."""
    while not stop.is_set():
        if not looking.wait(0.1):
            continue
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE)
        connection.request('GET', '/watch')
        answer = connection.getresponse()
        while looking.is_set() and (line := answer.readline()):
            events.value += line.startswith(b'data: ')
        connection.close()


def table(report: dict[str, Any]) -> str:
    """Return the figures of :func:`measure` as text."""
    alone, watched = (float(np.mean(report[name])) for name in ('alone', 'watched'))
    cpu = report['machine']
    return '\n'.join(
        (
            f'the page costs {report["cost"]:.3f} of a core ({report["cost_min"]:.3f} to '
            f'{report["cost_max"]:.3f} in {len(report["alone"])} rounds): the node takes '
            f'{alone:.3f} while nobody looks, {watched:.3f} while somebody does',
            f'cameras of {SIDE} x {SIDE} at {RATE:g} Hz, {report["events_per_second"]} events per '
            'second',
            f'{cpu["cpu"]}, {cpu["cores"]} cores, load {report["load_average"]:.1f}',
        )
    )
