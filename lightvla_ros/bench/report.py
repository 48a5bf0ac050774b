"""Reports of measurements as text."""

from __future__ import annotations

from typing import Any

COLUMNS = ('p50', 'p95', 'p99', 'max', 'min')


def policy_report(document: dict[str, Any]) -> str:
    """Return the table of :func:`lightvla_ros.bench.engines.measure_policy`."""
    lines = [
        f'{document["policy"]}: K {document["kept"]} of {document["patches"]} visual tokens, '
        f'{document["rounds"]} rounds, interleaved',
    ]
    if tflop := document['tflop']:
        lines.append(
            f'TFLOP of a chunk: {tflop["pruned"]:.4g} pruned, {tflop["unpruned"]:.4g} unpruned, '
            f'ratio {tflop["ratio"]:.3f}'
        )
    lines.append(_line('', dict.fromkeys(COLUMNS)) + '  ms')
    lines.append(_line('prepare (any engine)', document['prepare']))
    for row in document['rows']:
        lines += _engine_lines(row)
    lines += [f'not here: {each}' for each in document['not_here']]
    return '\n'.join(lines + _machine_lines(document))


def layer_report(document: dict[str, Any]) -> str:
    """Return the table of :func:`lightvla_ros.bench.layers.measure_layers`."""
    preset = document['preset']
    lines = [
        f'{preset["name"]}: {preset["layers"]} layers of the language model, random '
        f'{preset["precision"]} weights, {preset["weights_gib"]:.2f} GiB, {preset["rounds"]} '
        'rounds, interleaved',
        f'{"kept":>6}{"tokens":>8}{"p50 ms":>11}{"min ms":>11}{"TFLOP":>9}{"of rate":>9}'
        f'{"faster p50":>12}{"min":>7}{"FLOPs":>7}',
    ]
    for row in preset['rows']:
        lines.append(
            f'{row["kept"]:6}{row["sequence"]:8}{row["times"]["p50"]:11.2f}'
            f'{row["times"]["min"]:11.2f}{row["tflop"]:9.4f}{row["matrix_share"]:9.1%}'
            f'{row["faster_p50"]:12.2f}{row["faster_min"]:7.2f}{row["flop_ratio"]:7.2f}'
        )
    return '\n'.join(lines + _machine_lines(document))


def method_report(document: dict[str, Any]) -> str:
    """Return the table of :func:`lightvla_ros.bench.methods.measure_methods`."""
    width = max(len(row['name']) for row in document['rows'])
    lines = [
        f'encode and act of a chunk, {document["rounds"]} rounds, interleaved',
        f'{"":<{width}}  {"":<22}{"kept":>7}{"p50 ms":>9}{"min ms":>9}{"of the first":>14}',
    ]
    for row in document['rows']:
        engine, times = f'{row["backend"]} {row["precision"]}', row['chunk']
        lines.append(
            f'{row["name"]:<{width}}  {engine:<22}{row["kept"]:7.1f}{times["p50"]:9.2f}'
            f'{times["min"]:9.2f}{row["ratio_p50"]:14.3f}'
        )
    return '\n'.join(lines + _machine_lines(document))


def _engine_lines(row: dict[str, Any]) -> list[str]:
    lines = [f'{row["backend"]} {row["precision"]}', _line('  encode', row['encode'])]
    lines += [_line(f'  act {size}', times) for size, times in row['act'].items()]
    lines.append(_line(f'  chunk, pruned ({row["bucket"]})', row['pruned']))
    lines.append(_line('  chunk, unpruned', row['unpruned']))
    said = [f'pruned / unpruned {row["ratio_p50"]:.3f} (of the quickest {row["ratio_min"]:.3f})']
    if against := row['against_torch']:
        said.append(
            f'{against["pruned"]:.2f} and {against["unpruned"]:.2f} times as fast as torch '
            f'{against["precision"]}'
        )
    if row['host_ms']:
        said.append(f'host {row["host_ms"]["p50"]:.3f} ms')
    if share := row['matrix_share']:
        said.append(f'{share["pruned"]:.0%} and {share["unpruned"]:.0%} of the matrix rate')
    return [*lines, '  ' + '; '.join(said)]


def _line(name: str, times: dict[str, float | None]) -> str:
    return f'{name:<24}' + ''.join(
        f'{column if times[column] is None else format(times[column], ".2f"):>9}'
        for column in COLUMNS
    )


def _machine_lines(document: dict[str, Any]) -> list[str]:
    machine, load = document['machine'], document['load']
    rates = machine.get('matrix_gflop_per_second', {})
    rate = ', '.join(f'{name} {each:.1f}' for name, each in rates.items())
    rate = f'matrix rate {rate} GFLOP/s; ' if rates else ''
    versions = ', '.join(f'{name} {found}' for name, found in machine['versions'].items())
    lines = [
        f'{machine["cpu"]}, {machine["cores"]} cores, {machine["threads"]} threads used, load '
        f'{load["before"]:.2f} before and {load["after"]:.2f} after',
        f'{rate}{versions}, Python {machine["python"]}',
    ]
    if load['warning']:
        lines.append(f'warning: {load["warning"]}')
    return lines
