"""The measurement of a GPU as a table and as a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def gpu_report(document: dict[str, Any]) -> str:
    """Return the document as a table."""
    limits, gpu = document['limits'], document['machine']['gpu']
    rates = ', '.join(f'{name} {rate:.4g}' for name, rate in limits.items() if name != 'copy')
    lines = [
        f'{document["subject"]} ({document["weights"]} weights) on {gpu["gpu"]}: '
        f'{document["pruned"]} of {document["patches"]} visual tokens, {document["rounds"]} rounds',
        f'measured limits: products {rates} TFLOP/s; copies {limits["copy"]:.4g} GB/s',
        f'{"":9}{"encode":>8}{"act":>8}{"chunk":>8}{"p99":>8}{"all":>8}{"ratio":>7}{"limit":>8}'
        f'{"share":>7}{"eager":>8}{"ready s":>9}{"GiB":>7}  ms, p50',
        *(gpu_line(row, document['pruned']) for row in document['rows']),
    ]
    if gpu['gpu'] == 'cpu':
        lines.append('a dry run on a CPU: these figures say nothing about a GPU')
    return '\n'.join(lines)


def gpu_line(row: dict[str, Any], pruned: int) -> str:
    """Return one precision as a row of the table.

    :param pruned: Visual tokens of a pruned chunk.
    """
    chunk, memory = row['chunk'], row['peak_gib']
    return (
        f'{row["precision"]:9}{row["encode"]["p50"]:8.2f}{row["act"][str(pruned)]["p50"]:8.2f}'
        f'{chunk["pruned"]["p50"]:8.2f}{chunk["pruned"]["p99"]:8.2f}{chunk["unpruned"]["p50"]:8.2f}'
        f'{row["ratio_p50"]:7.3f}{row["limit_ms"][str(pruned)]:8.2f}'
        f'{row["share_of_limit"]["pruned"]:7.0%}{row["eager"]["pruned"]["p50"]:8.2f}'
        f'{row["ready_s"]:9.1f}' + (f'{memory:7.2f}' if memory is not None else f'{"-":>7}')
    )


def write_plot(document: dict[str, Any], path: Path) -> None:
    """Draw the time of a chunk against the number of kept tokens, with the limit of this GPU.

    The time of a chunk is that of ``encode`` and of ``act`` with the bucket.
    """
    from matplotlib.figure import Figure  # of the extra `sim`, and only for the picture

    figure = Figure(figsize=(7.5, 4.5), layout='constrained')
    axes = figure.add_subplot()
    for index, row in enumerate(document['rows']):
        colour = f'C{index}'
        kept = [int(size) for size in row['act']]
        times = [row['encode']['p50'] + each['p50'] for each in row['act'].values()]
        limit = [row['limit_ms'][str(size)] for size in kept]
        axes.plot(kept, times, 'o-', color=colour, label=f'{row["precision"]}, measured')
        axes.plot(kept, limit, ':', color=colour, label=f'{row["precision"]}, limit of this GPU')
    gpu = document['machine']['gpu']
    axes.set_title(f'{document["subject"]} on {gpu["gpu"]}, torch {gpu["torch"]}')
    axes.set_xlabel(f'kept visual tokens of {document["patches"]}')
    axes.set_ylabel('one chunk, p50 [ms]')
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize='small')
    figure.savefig(path, dpi=130)
