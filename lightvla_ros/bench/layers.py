"""Measure the language model of a preset in its true shapes, with random weights.

What pruning gains on a machine depends on shapes alone, so that needs no checkpoint: only as many
layers as fit, all being alike.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from lightvla_ros.bench.load_watch import LoadWatch
from lightvla_ros.bench.timing import (
    MatrixProduct,
    gflop_per_second,
    has_torch,
    percentiles_ms,
    take_turns,
)
from lightvla_ros.errors import BenchError, ConfigError
from lightvla_ros.machine import available_memory, has_bf16, measured_with
from lightvla_ros.vla.config import LanguageConfig, VLAConfig, act_flops, preset

WARM_UP = 1  # rounds
SEED = 0
BYTES = {'bf16': 2, 'fp32': 4}
WORKSPACE = 2**30  # bytes for states and for what the matrix library repacks
KEPT_SHARE = 78 / 512  # of visual tokens: what the paper reports


@dataclass(frozen=True)
class LayerBench:
    """Options of the measurement.

    :param layers: Of the preset's decoder layers; all when None.
    :param kept: Numbers of visual tokens; all and the paper's share when None.
    :param text: Text tokens: BOS, the prompt's words and stop.
    :param precision: ``bf16`` or ``fp32``.
    """

    preset: str
    rounds: int
    threads: int
    layers: int | None = None
    kept: tuple[int, ...] | None = None
    text: int = 35
    precision: str = 'bf16'


def measure_layers(options: LayerBench) -> dict[str, Any]:
    """Measure, and return a document for JSON. What memory is needed goes to stderr first.

    :raises BenchError: When an option is invalid, or the layers do not fit into memory.
    """
    if not has_torch():
        raise BenchError("--preset needs PyTorch: pip install 'lightvla_ros[train]'")
    config, kept = _resolve(options)
    size = weight_bytes(config.language, options.precision)
    _check_memory(size, config.language.layers, options)
    others = options.text + int(config.proprio_size > 0) + config.action_slots
    watch = LoadWatch(options.threads)
    product = MatrixProduct(options.precision, options.threads)
    forwards = _forwards(config.language, [each + others for each in kept], options.precision)
    results = take_turns(
        {**forwards, 'matrix': product.time},
        options.rounds,
        WARM_UP,
    )
    rate = gflop_per_second(results['matrix'])
    rows, first = [], None
    for number in kept:
        length = number + others
        times = percentiles_ms(results[length])
        tflop = act_flops(config, others, number) / 1e12
        first = first or (times, tflop)
        rows.append(
            {
                'kept': number,
                'sequence': length,
                'times': times,
                'tflop': tflop,
                'matrix_share': round(tflop * 1e6 / times['p50'] / rate, 4),
                'faster_p50': round(first[0]['p50'] / times['p50'], 3),
                'faster_min': round(first[0]['min'] / times['min'], 3),
                'flop_ratio': round(first[1] / tflop, 3),
            }
        )
    return {
        'machine': measured_with(options.threads)
        | {'matrix_gflop_per_second': {options.precision: rate}},
        'load': watch.report(),
        'preset': {
            'name': options.preset,
            'layers': config.language.layers,
            'precision': options.precision,
            'weights_gib': round(size / 2**30, 3),
            'text': options.text,
            'rounds': options.rounds,
            'rows': rows,
        },
    }


def weight_bytes(config: LanguageConfig, precision: str) -> int:
    """Size of the layers' weights [bytes]."""
    matrices = 4 * config.width**2 + 3 * config.width * config.mlp_width
    return config.layers * (matrices + 2 * config.width) * BYTES[precision]


def _resolve(options: LayerBench) -> tuple[VLAConfig, tuple[int, ...]]:
    """Return the configuration with as many layers as asked for, and the numbers of tokens."""
    try:
        config = preset(options.preset)
    except ConfigError as error:
        raise BenchError(f'--preset: {error}') from None
    most = config.language.layers
    layers = most if options.layers is None else options.layers
    if not 1 <= layers <= most:
        raise BenchError(f'--layers {layers}: {options.preset} has 1 to {most}')
    kept = options.kept or (config.patches, round(KEPT_SHARE * config.patches))
    for number in kept:
        if not 1 <= number <= config.patches:
            raise BenchError(
                f'--kept {number}: {options.preset} has 1 to {config.patches} visual tokens'
            )
    if options.text < 2:
        raise BenchError(f'--text {options.text}: BOS and stop alone are 2')
    return replace(config, language=replace(config.language, layers=layers)), kept


def _check_memory(size: int, layers: int, options: LayerBench) -> None:
    """Report the memory of the layers; refuse them if the machine would swap."""
    available = available_memory()
    print(
        f'{layers} layers of {options.preset} in {options.precision}: {size / 2**30:.1f} GiB of '
        f'weights, {available / 2**30:.1f} GiB available',
        file=sys.stderr,
    )
    if options.precision == 'bf16' and not has_bf16():
        print(
            'this processor has no bf16 units: it is emulated, and slow; --precision fp32 is not',
            file=sys.stderr,
        )
    if size + WORKSPACE > available:
        fits = max(0, int((available - WORKSPACE) / (size / layers)))
        raise BenchError(
            f'--layers {layers}: {size / 2**30:.1f} GiB of weights and 1 GiB of workspace do not '
            f'fit into the {available / 2**30:.1f} GiB available; {fits} layers do'
        )


def _forwards(
    config: LanguageConfig, lengths: list[int], precision: str
) -> dict[int, Callable[[int], float]]:
    """Build the layers; return what runs them once and times it, by length of the sequence."""
    import torch

    from lightvla_ros.vla.language import LlamaModel

    number = {'fp32': torch.float32, 'bf16': torch.bfloat16}[precision]
    with torch.device('meta'):  # embeddings stay there, nobody looks one up
        model = LlamaModel(config).eval().requires_grad_(False).to(number)
    model.layers.to_empty(device='cpu')
    random = torch.Generator().manual_seed(SEED)
    for weight in model.layers.parameters():
        if weight.ndim == 1:
            weight.fill_(1)  # a norm's gain
        else:
            weight.uniform_(-0.02, 0.02, generator=random)  # about as large as LLaMA's

    def forward(states: torch.Tensor, positions: torch.Tensor) -> float:
        started = time.perf_counter()
        with torch.inference_mode():
            model(states, positions)
        return time.perf_counter() - started

    def of_length(length: int) -> Callable[[int], float]:
        states = torch.empty(1, length, config.width).normal_(generator=random).to(number)
        positions = torch.arange(length)[None]
        return lambda _: forward(states, positions)

    return {length: of_length(length) for length in lengths}
