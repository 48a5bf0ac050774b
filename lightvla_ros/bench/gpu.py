"""``lightvla bench gpu``: the model on a GPU, against the limits of the same GPU in the same run.

Each precision of the engine ``torch-cuda`` is measured: ``encode``, ``act`` by bucket, and whole
chunks, pruned and unpruned in turns; eager PyTorch is timed beside it. The limits are measured,
too: the rate of a large product in each precision, and of a copy in the GPU's memory. A stage takes
at least max(FLOPs / rate, bytes of its weights / copy rate), as in ``gpu_plan.py``. Every time
includes the copies of inputs and results and the wait for them.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightvla_ros.bench.gpu_plan import Costs, Precision, count_costs, make_plan
from lightvla_ros.bench.gpu_report import gpu_line
from lightvla_ros.bench.gpus import Gpu
from lightvla_ros.bench.timing import percentiles_ms, ratio_p50, take_turns
from lightvla_ros.contract import load_manifest
from lightvla_ros.engine.static_model import StaticModel
from lightvla_ros.engine.torch_cuda import check_memory, gpu_facts, weight_bytes
from lightvla_ros.errors import BenchError
from lightvla_ros.machine import measured_with
from lightvla_ros.vla.config import VLAConfig, preset
from lightvla_ros.vla.fp8 import E4M3, measure_activations
from lightvla_ros.vla.halves import ActHalf, EncodeHalf
from lightvla_ros.vla.model import LightVLA
from lightvla_ros.vla.weights import NUMBERS, config_of, load_model

PROMPT = 34  # positions of a preset's prompt with BOS
LADDER = (1 / 16, 1 / 8, 5 / 32, 3 / 16, 1 / 4, 1 / 2, 1)  # of all tokens: 32, 64, 80, ... of 512
PAPER = 80  # bucket of the 78 tokens that the paper keeps of 512
WARM_UP = 5
EAGER_ROUNDS = 10
SIDE, COPIED = 8192, 2**31  # of the products; bytes of the copy
SMALL_SIDE, SMALL_COPIED = 512, 2**24  # of a dry run on a CPU


@dataclass(frozen=True)
class GpuBench:
    """Options of the measurement.

    :param preset: Name of a model with random weights; None with ``policy``.
    :param policy: Folder with weights; None with ``preset``.
    :param precisions: In the order in which they are measured. The first is measured in every
        bucket, the others in two.
    :param kept: Visual tokens of a pruned chunk; None: the paper's share.
    :param device: ``cuda``; ``cpu`` is a dry run of the measurement, whose figures say nothing.
    """

    preset: str | None
    policy: Path | None
    precisions: tuple[str, ...] = ('bf16', 'fp8', 'fp16', 'fp32')
    rounds: int = 200
    kept: int | None = None
    compiled: bool = True
    device: str = 'cuda'


def measure_gpu(options: GpuBench, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure, and return a document for JSON.

    :param say: Receives a line for each step.
    :raises BenchError: When an option is invalid.
    :raises ContractError: When the policy folder cannot be trusted.
    :raises EngineError: When there is no GPU, or its memory is too small.
    """
    facts = gpu_facts(options.device)
    config, prompt = _subject(options)
    pruned = options.kept or max(2, round(PAPER / 512 * config.patches))
    if not 2 <= pruned <= config.patches:
        raise BenchError(f'--kept {pruned}: the model has 2 to {config.patches} visual tokens')
    buckets = tuple(sorted({pruned, *(max(2, round(share * config.patches)) for share in LADDER)}))
    limits = measure_limits(options.device)
    say(f'limits: {", ".join(f"{name} {value:.4g}" for name, value in limits.items())}')
    costs = count_costs(config, buckets, prompt + 1)
    rows = []
    for precision in options.precisions:
        say(f'{precision}: building')
        some = buckets if not rows else tuple(sorted({pruned, config.patches}))
        row = _measure(options, config, prompt, precision, some, pruned)
        rows.append(row | _shares(row, precision, pruned, costs, limits))
        say(gpu_line(rows[-1], pruned))
    return {
        'machine': measured_with(torch.get_num_threads()) | {'gpu': facts},
        'subject': str(options.policy or options.preset),
        'weights': 'of the policy' if options.policy else 'random',
        'pruned': pruned,
        'patches': config.patches,
        'prompt': prompt,
        'rounds': options.rounds,
        'compiled': options.compiled,
        'limits': limits,
        'rows': rows,
    }


def measure_limits(device: str) -> dict[str, float]:
    """Measure the rate of products [TFLOP/s] by precision, and of copies [GB/s].

    A copy of n bytes counts 2 n: it reads and writes them. fp8 is left out where there is none.
    """
    side, copied = (SIDE, COPIED) if device == 'cuda' else (SMALL_SIDE, SMALL_COPIED)
    found = {}
    for name, number in NUMBERS.items():
        one, two = (torch.randn(side, side, device=device).to(number) for _ in range(2))
        out = torch.empty_like(one)
        seconds = _median(lambda a=one, b=two, c=out: torch.mm(a, b.t(), out=c), device)
        found[name] = round(2 * side**3 / seconds / 1e12, 4)
    if device != 'cuda' or torch.cuda.get_device_capability() >= (8, 9):
        one, two = (torch.randn(side, side, device=device).to(E4M3) for _ in range(2))
        scale = torch.ones((), device=device)
        seconds = _median(
            lambda: torch._scaled_mm(one, two.t(), scale, scale, out_dtype=torch.bfloat16), device
        )
        found['fp8'] = round(2 * side**3 / seconds / 1e12, 4)
    source = torch.zeros(copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = _median(lambda: target.copy_(source), device)
    return found | {'copy': round(2 * copied / seconds / 1e9, 1)}


def _median(run: Callable[[], object], device: str) -> float:
    """Return the median of the seconds that a large operation takes, after a warm-up."""

    def timed(_: int) -> float:
        started = time.perf_counter()
        run()
        if device == 'cuda':
            torch.cuda.synchronize()
        return time.perf_counter() - started

    return float(np.median(take_turns({'': timed}, 10, 3)['']))


def _subject(options: GpuBench) -> tuple[VLAConfig, int]:
    """Return the configuration of the model, and its prompt's length with BOS."""
    if options.policy is None:
        return preset(options.preset or ''), PROMPT
    manifest = load_manifest(options.policy)
    if manifest.model is None:
        raise BenchError(f'{options.policy}: holds no weights, which the GPU needs')
    return config_of(manifest), manifest.prompt.length


def _model(options: GpuBench, config: VLAConfig, number: torch.dtype) -> LightVLA:
    if options.policy is not None:
        return load_model(options.policy, number).to(options.device)
    default = torch.get_default_dtype()
    torch.set_default_dtype(number)  # a 7B in fp32 would not fit into the memory of most GPUs
    try:
        with torch.device(options.device):
            return LightVLA(config).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(default)


def _measure(
    options: GpuBench,
    config: VLAConfig,
    prompt: int,
    precision: str,
    buckets: tuple[int, ...],
    pruned: int,
) -> dict[str, Any]:
    """Measure one precision."""
    on_gpu = options.device == 'cuda'
    number = torch.bfloat16 if precision == 'fp8' else NUMBERS[precision]
    if on_gpu:
        # unfused, a model for fp8 is on the GPU in 16 bits first
        check_memory(config, 'bf16' if precision == 'fp8' else precision)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(0)
    model = _model(options, config, number)
    sizes = pruned, config.patches
    eager = _time_eager(options, model, prompt, sizes, min(EAGER_ROUNDS, options.rounds))
    largest = None
    if precision == 'fp8':
        # after the timing: looking at every activation makes the host wait for the GPU
        with measure_activations(model.language_model.model) as largest:
            _time_eager(options, model, prompt, sizes, 1)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    static = StaticModel(
        model,
        prompt - 1,
        buckets,
        options.device,
        number,
        largest=largest,
        compiled=options.compiled,
    )
    ready = time.perf_counter() - started
    random = np.random.default_rng(0)
    static.pixels.write(random.standard_normal(static.pixels.array.shape, np.float32))
    if static.proprio is not None:
        static.proprio.write(np.zeros_like(static.proprio.array))
    mask = np.ones((1, prompt), dtype=bool)
    static.set_prompt(random.integers(0, config.language.vocabulary, (1, prompt)), mask)
    weights = weight_bytes(config, precision)
    row = {
        'precision': precision,
        'ready_s': round(ready, 2),
        'steps_s': {name: round(each, 2) for name, each in static.seconds.items()},
        'weights_gib': round(weights / 2**30, 3),
        'peak_gib': round(torch.cuda.max_memory_allocated() / 2**30, 3) if on_gpu else None,
        'eager': eager,
        **_time_static(static, buckets, pruned, options.rounds),
    }
    static.close()
    del model, static
    gc.collect()
    return row


def _time_static(
    static: StaticModel, buckets: Sequence[int], pruned: int, rounds: int
) -> dict[str, Any]:
    def timed(run: Callable[[], None]) -> Callable[[int], float]:
        def measured(_: int) -> float:
            started = time.perf_counter()
            run()
            return time.perf_counter() - started

        return measured

    def chunk(bucket: int) -> Callable[[], None]:
        def run() -> None:
            static.encode()
            static.act(bucket)

        return run

    whole = buckets[-1]
    parts = take_turns(
        {
            'encode': timed(static.encode),
            **{bucket: timed(lambda b=bucket: static.act(b)) for bucket in buckets},
        },
        max(10, rounds // 4),
        WARM_UP,
    )
    chunks = take_turns(
        {'pruned': timed(chunk(pruned)), 'unpruned': timed(chunk(whole))}, rounds, WARM_UP
    )
    return {
        'encode': percentiles_ms(parts['encode']),
        'act': {str(bucket): percentiles_ms(parts[bucket]) for bucket in buckets},
        'chunk': {name: percentiles_ms(each) for name, each in chunks.items()},
        'ratio_p50': ratio_p50(chunks['pruned'], chunks['unpruned']),
    }


@torch.no_grad()
def _time_eager(
    options: GpuBench,
    model: LightVLA,
    prompt: int,
    sizes: tuple[int, ...],
    rounds: int,
) -> dict[str, Any]:
    """Time the same halves without graphs, fusing and compilation."""
    config, device = model.config, options.device
    encode, act = EncodeHalf(model), ActHalf(model)
    shape = (config.cameras, 6, config.image_size, config.image_size)
    pixels = torch.randn(shape, device=device)
    words = torch.randn(1, prompt - 1, config.language.width, device=device)
    mask = torch.ones(1, prompt - 1, dtype=torch.bool, device=device)
    proprio = None
    if config.proprio_size:
        proprio = torch.zeros(1, config.proprio_size, device=device)

    def chunk(size: int) -> Callable[[int], float]:
        def timed(_: int) -> float:
            started = time.perf_counter()
            tokens, positions, kept, context = encode(pixels, words, mask, proprio)
            act(tokens[:, :size], positions[:, :size], kept, context, mask).cpu()
            return time.perf_counter() - started

        return timed

    found = take_turns({size: chunk(size) for size in sizes}, rounds, 2)
    small, large = (percentiles_ms(found[size]) for size in sizes)
    return {'pruned': small, 'unpruned': large, 'ratio_p50': ratio_p50(*found.values())}


def _shares(
    row: dict[str, Any], precision: str, pruned: int, costs: Costs, limits: dict[str, float]
) -> dict[str, Any]:
    """Return the limits of this row's times [ms], and the shares of them that were reached."""
    half = 'bf16' if precision == 'fp8' else precision
    peaks = {half: limits[half], precision: limits[precision]}
    bits = {'fp32': 32, 'fp8': 8}.get(precision, 16)
    plan = make_plan(
        Gpu('this GPU', peaks, limits['copy'], None),
        Precision(precision, half, precision, max(bits, 16), bits),
        costs,
        [int(size) for size in row['act']],
    )
    floors = {each.kept: each.floor_ms for each in plan.rows}
    ends = {'pruned': floors[pruned], 'unpruned': max(floors.values())}
    return {
        'limit_ms': {
            'encode': round(plan.rows[0].stages['vision'].floor_ms, 4),
            **{str(kept): round(floor, 4) for kept, floor in floors.items()},
        },
        'share_of_limit': {
            name: round(floor / row['chunk'][name]['p50'], 3) for name, floor in ends.items()
        },
    }
