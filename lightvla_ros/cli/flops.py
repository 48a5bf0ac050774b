"""`lightvla flops`: counts the FLOPs of a chunk by the number of kept tokens."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightvla_ros.cli.arguments import add_preset, parse_count, parse_pruning
from lightvla_ros.contract import load_manifest
from lightvla_ros.errors import ArgumentError
from lightvla_ros.vla.config import PrunerConfig, VLAConfig, preset

STAR = 'lightvla_star_encoder:QUERIES, lightvla_star_llm:QUERIES:LAYER'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``lightvla flops``."""
    add_preset(parser)
    parser.add_argument('--policy', type=Path, metavar='DIR', help='a policy folder with weights')
    parser.add_argument(
        '--kept',
        type=parse_count,
        nargs='+',
        metavar='K',
        help='numbers of kept visual tokens; default: all tokens, and the number that adp or dart '
        'keeps',
    )
    parser.add_argument(
        '--pruning',
        type=_parse_pruning,
        metavar='METHOD',
        help='count another way of pruning than the model has: lightvla, off, adp:SHARE, '
        f'dart:SHARE, {STAR}',
    )
    parser.add_argument(
        '--prune',
        metavar='NAME',
        help='count a compared method of `lightvla eval --prune` that keeps K, in relation to all '
        'patches; needs --kept',
    )
    parser.add_argument('--json', action='store_true', help='print JSON alone')


def run(parsed: argparse.Namespace) -> int:
    """Print the table."""
    from lightvla_ros.vla.flops import count_flops, count_parameters

    config = _config(parsed)
    if parsed.pruning is not None:
        config = replace(config, pruning=parsed.pruning)
    usual = [config.patches] + [config.fixed_kept] * (config.fixed_kept is not None)
    if parsed.prune is not None:
        rows = _compared(config, parsed)
    else:
        rows = count_flops(config, parsed.kept or usual, parsed.text)
    if parsed.json:
        print(json.dumps(rows, indent=2))
        return 0
    print(f'{parsed.policy or parsed.preset}: {count_parameters(config) / 1e6:.2f} M parameters')
    names = list(rows[0])
    print(''.join(f'{name:>11}' for name in names) + '   of the first row')
    for row in rows:
        numbers = ''.join(
            f'{row[name]:11d}' if isinstance(row[name], int) else f'{row[name]:11.4f}'
            for name in names
        )
        print(f'{numbers}   {row["tflop"] / rows[0]["tflop"]:.3f}')
    return 0


def _parse_pruning(text: str) -> PrunerConfig:
    """Parse what :func:`parse_pruning` does, and LightVLA* with its sizes.

    :raises argparse.ArgumentTypeError: When it is none of these, or a size is impossible.
    """
    if not text.startswith('lightvla_star'):
        return parse_pruning(text)
    method, *sizes = text.split(':')
    names = {'lightvla_star_encoder': ['queries'], 'lightvla_star_llm': ['queries', 'layer']}
    wanted = names.get(method, [])
    if len(sizes) != len(wanted) or not all(re.fullmatch(r'\d{1,9}', each) for each in sizes):
        raise argparse.ArgumentTypeError(f'{text!r} is none of {STAR}')
    config = PrunerConfig(method, **dict(zip(wanted, map(int, sizes), strict=True)))
    if problems := config.problems():
        raise argparse.ArgumentTypeError(f'{text!r}: {"; ".join(problems)}')
    return config


def _compared(config: VLAConfig, parsed: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the rows of a compared method, the first one of all patches without it."""
    from lightvla_ros.vla.compared.flops import count_compared
    from lightvla_ros.vla.flops import count_flops

    if parsed.kept is None or parsed.pruning is not None:
        raise ArgumentError('--prune needs --kept K, and excludes --pruning')
    [whole] = count_flops(config, [config.patches], parsed.text)
    return [
        {'kept': config.patches, 'tflop': whole['tflop']},
        *(
            {'kept': k, 'tflop': count_compared(config, parsed.prune, k, parsed.text)}
            for k in parsed.kept
        ),
    ]


def _config(parsed: argparse.Namespace) -> VLAConfig:
    from lightvla_ros.vla.weights import config_of

    if parsed.policy is None:
        return preset(parsed.preset)
    manifest = load_manifest(parsed.policy)
    if manifest.model is None:
        raise ArgumentError(
            f'{parsed.policy}: holds only graphs, from which the model cannot be read'
        )
    return config_of(manifest)
