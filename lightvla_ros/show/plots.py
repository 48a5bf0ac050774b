"""Plots: kept tokens over an episode, what they show, chunks under delay, success and FLOPs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightvla_ros.files import replace_whole
from lightvla_ros.show.watch import Seen
from lightvla_ros.sim.patch_owners import ON_TASK, ROLES, Shares, sum_of

KEPT_COLOURS = {True: '#2e8b57', False: '#8a8f98'}  # on the task, or not
PATCHES_COLOUR = '#d5d8dc'

CAMERA_COLOURS = ('#2a7ab9', '#d9822b', '#7a5fa8')
ALL_COLOUR = '#333333'
METHOD_MARKERS = 'osD^v<>PXph*d'
DELAY_COLOURS = ('#8a8f98', '#2a7ab9', '#d9822b', '#2e8b57')


def write_kept_over_time(seen: Seen, path: Path) -> Path:
    """Write K of each executed chunk, per camera and of all."""
    figure = Figure((7.5, 3.4), layout='constrained')
    axes = figure.subplots()
    steps = [moment.step for moment in seen.acted]
    counts = np.array([moment.kept.sum(axis=1) for moment in seen.acted])
    total = seen.moments[0].kept.size
    mean = counts.sum(axis=1).mean()
    axes.plot(steps, counts.sum(axis=1), 'o-', color=ALL_COLOUR, ms=4, label='all cameras')
    for index, (camera, colour) in enumerate(zip(seen.cameras, CAMERA_COLOURS, strict=False)):
        axes.plot(steps, counts[:, index], '.-', color=colour, ms=5, label=words(camera))
    top = 1.25 * counts.sum(axis=1).max() + 1
    marks = [
        (name, step)
        for name in ('touched', 'lifted', 'released')
        if (step := getattr(seen.events, name)) is not None
    ]
    for height, (name, step) in enumerate(marks):
        axes.axvline(step, color='#bbbbbb', lw=0.8, zorder=0)
        # on a line of its own each: they may be a step apart
        place = (step, top * (0.985 - 0.06 * height))
        axes.annotate(
            name,
            place,
            (3, 0),
            textcoords='offset points',
            fontsize=8,
            color='#666666',
            va='top',
            bbox={'facecolor': 'white', 'edgecolor': 'none', 'pad': 0.5},
        )
    axes.set(xlabel='step', ylabel='kept visual tokens', ylim=(0, top), xlim=(-1, None))
    axes.set_title(
        f'"{seen.instruction}"\nK = {mean:.1f} of {total} tokens on average ({mean / total:.1%})',
        fontsize=10,
    )
    without_frame(axes)
    figure.legend(loc='outside lower center', ncols=1 + len(seen.cameras), frameon=False)
    return save(figure, path)


def write_concentration(shares: dict[str, Shares], title: str, path: Path) -> Path:
    """Write bars by role: the share of kept patches beside the share of all patches."""
    panels = {'all cameras': sum_of(list(shares.values())), **shares}
    figure = Figure((3.1 * len(panels) + 1, 3.9), layout='constrained')
    all_axes = figure.subplots(1, len(panels), sharey=True, sharex=True, squeeze=False)[0]
    places = np.arange(len(ROLES))
    for axes, (name, each) in zip(all_axes, panels.items(), strict=True):
        for offset, values, colours in (
            (-0.2, each.kept_share, [KEPT_COLOURS[role in ON_TASK] for role in ROLES]),
            (0.2, each.patches_share, PATCHES_COLOUR),
        ):
            widths = [100 * values[role] for role in ROLES]
            bars = axes.barh(places + offset, widths, 0.38, color=colours)
            axes.bar_label(bars, fmt='%.0f', padding=2, fontsize=8, color='#555555')
        axes.set_title(
            f'{words(name)}: {each.kept.sum() / max(each.patches.sum(), 1):.1%} of tokens kept\n'
            f'on task: kept {each.kept_on_task:.0%}, image {each.patches_on_task:.0%}',
            fontsize=9,
        )
        axes.set_yticks(places, ROLES)
        axes.set_xlabel('% of patches', fontsize=9)
        without_frame(axes)
    all_axes[0].invert_yaxis()
    all_axes[0].margins(x=0.14)
    figure.suptitle(title, fontsize=11)
    handles = [
        all_axes[0].barh(0, 0, color=colour)
        for colour in (KEPT_COLOURS[True], KEPT_COLOURS[False], PATCHES_COLOUR)
    ]
    labels = ('kept, on task (object, target, gripper)', 'kept, off task', 'all patches')
    figure.legend(handles, labels, loc='outside lower center', ncols=3, frameon=False, fontsize=9)
    return save(figure, path)


def write_delays(document: dict[str, Any], path: Path) -> Path:
    """Write success and the jumps at seams against the delay, a line for each way.

    :param document: The result of ``lightvla bench delays``.
    """
    horizons = sorted({row['horizon'] for row in document['points']}, reverse=True)
    ways = list(dict.fromkeys(map(_way, document['points'])))
    figure = Figure((3.2 * len(horizons) + 1.2, 7.5), layout='constrained')
    grid = figure.subplots(3, len(horizons), sharex=True, sharey='row', squeeze=False)
    for column, horizon in enumerate(horizons):
        for index, way in enumerate(ways):
            rows = [
                row
                for row in document['points']
                if (row['horizon'], _way(row)) == (horizon, way) and row['episodes']
            ]
            delays = [row['delay_ms'] for row in rows]
            style = {'color': DELAY_COLOURS[index % len(DELAY_COLOURS)], 'ms': 4, 'label': way}
            rates = 100 * np.array([[row[k] for k in ('rate', 'low', 'high')] for row in rows])
            if rows:
                grid[0, column].plot(delays, rates[:, 0], 'o-', **style)
                shade = style['color']
                grid[0, column].fill_between(delays, *rates[:, 1:].T, color=shade, alpha=0.08)
            for axes, unit in ((grid[1, column], 'seam_mm'), (grid[2, column], 'seam_deg')):
                found = [(row['delay_ms'], row[unit]['p95']) for row in rows if row[unit]]
                axes.plot(*np.array(found).reshape(-1, 2).T, 'o-', **style)
        grid[0, column].set_title(f'a chunk every {horizon} steps', fontsize=10)
        grid[2, column].set_xlabel('delay of the observations [ms]', fontsize=9)
    for axes in grid.flat:
        without_frame(axes)
        axes.set_ylim(bottom=0)
    grid[0, 0].set_ylim(0, 103)
    grid[0, 0].set_ylabel('solved [%], Wilson 95 %', fontsize=9)
    grid[1, 0].set_ylabel('jump at seams, p95 [mm]', fontsize=9)
    grid[2, 0].set_ylabel('jump at seams, p95 [°]', fontsize=9)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc='outside lower center',
        ncols=min(len(ways), 4),
        frameon=False,
        fontsize=9,
    )
    return save(figure, path)


def write_success_and_flops(results: dict[str, dict[str, Any]], path: Path) -> Path:
    """Write the success of rows against the FLOPs of a chunk; a line joins a method's numbers k.

    :param results: Results of ``lightvla eval`` by the name of their row, such as ``dart-16``.
    """
    methods: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for row, result in results.items():
        if 'ratio' in result['flops'] and result['episodes']:
            name, k = re.fullmatch(r'(.*?)(?:-(\d+))?', row).groups()
            methods.setdefault(name, []).append((k or '', result))
    figure = Figure((9, 5.4), layout='constrained')
    axes = figure.subplots()
    for index, (name, found) in enumerate(methods.items()):
        found.sort(key=lambda each: each[1]['flops']['ratio'])
        shares = [100 * each['flops']['ratio'] for _, each in found]
        rates, low, high = (
            100 * np.array([each['success'][key] for _, each in found])
            for key in ('rate', 'low', 'high')
        )
        (line,) = axes.plot(
            shares,
            rates,
            marker=METHOD_MARKERS[index % len(METHOD_MARKERS)],
            color=f'C{index % 10}',
            ms=6,
            lw=1,
            label=words(name),
        )
        axes.vlines(shares, low, high, color=line.get_color(), lw=0.8, alpha=0.5)
        for (k, _), share, rate in zip(found, shares, rates, strict=True):
            axes.annotate(k, (share, rate), (4, 3), textcoords='offset points', fontsize=7)
    axes.set_xlabel('FLOPs of a chunk, of those without pruning [%]', fontsize=9)
    axes.set_ylabel('solved [%], Wilson 95 %', fontsize=9)
    axes.set_ylim(-2, 103)
    axes.grid(alpha=0.25)
    without_frame(axes)
    figure.legend(loc='outside right upper', frameon=False, fontsize=8)
    return save(figure, path)


def _way(row: dict[str, Any]) -> str:
    """Return how the chunks were executed and the observations came, but for their delay."""
    jitter = f', up to {row["jitter_ms"]} ms more' if row['jitter_ms'] else ''
    return words(row['variant']) + jitter + (f', {row["loss"]:.0%} lost' if row['loss'] else '')


def save(figure: Figure, path: Path, dpi: int = 130) -> Path:
    """Write a figure as a PNG. A bare ``Figure`` needs no display."""
    with replace_whole(path) as part:
        figure.savefig(part, dpi=dpi, facecolor='white')
    return path


def words(name: str) -> str:
    """Turn a name into words: ``third_person`` -> ``third person``."""
    return name.replace('_', ' ')


def without_frame(axes: Axes) -> None:
    """Leave the axes' upper and right lines out."""
    axes.spines[['top', 'right']].set_visible(False)
