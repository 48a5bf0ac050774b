"""``lightvla plan``: how fast a chunk can be at best on a GPU, and which engine that calls for.

A stage takes at least max(FLOPs / peak, bytes of its weights / bandwidth), and the stages follow
each other (``docs/explanation/engines.md``). The *floor* grants all of both peaks, the *target*
what good engines reach of them. Traffic of activations, launches, copies and the host are left out,
so the floor stays a lower bound. Nothing here is a measurement.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lightvla_ros.bench.gpus import Gpu
from lightvla_ros.vla.config import VLAConfig

STAGES = ('vision', 'llm', 'head')  # vision: both towers, both projectors and the pruner
TARGET_FLOPS, TARGET_BANDWIDTH = 0.6, 0.8  # of the peaks (``docs/explanation/engines.md``)
FOUR_BITS = 4.5  # a 16-bit scale per 32 weights, or NVFP4's 8-bit one per 16
BUCKET_MULTIPLE = 8  # tensor cores work on whole tiles; 8 is the least
FP8 = (
    'torch-cuda runs the decoder in fp8 and the towers in 16 bits, so its limit is between '
    'those of fp8 and of 16 bits; calibrate and verify the policy first.'
)
BUCKET_STEP = 1.2  # ours: padding costs a fifth of the LLM at worst, and engines stay few


@dataclass(frozen=True)
class Precision:
    """How weights are stored and multiplied; the head always stays at 16 bits.

    :param vision: Number type that the vision stage is stored and multiplied in.
    :param llm: Number type that the language model is multiplied in.
    :param vision_bits: Bits of a stored weight; of ``llm_bits`` likewise, scales included.
    """

    name: str
    vision: str
    llm: str
    vision_bits: float
    llm_bits: float


@dataclass(frozen=True)
class Costs:
    """Costs of the model on any GPU.

    :param parameters: Of each stage. The embeddings are not among them: they stay on the host.
    :param tflop: By the number of kept tokens, then by stage [TFLOP].
    :param patches: All visual tokens.
    :param others: Tokens of the sequence that pruning cannot take.
    """

    parameters: dict[str, int]
    tflop: dict[int, dict[str, float]]
    patches: int
    others: int


@dataclass(frozen=True)
class Stage:
    """Times of one stage [ms], and whether ``FLOPs`` or ``bytes`` bind the floor."""

    floor_ms: float
    target_ms: float
    binds: str


@dataclass(frozen=True)
class Row:
    """One number of kept tokens.

    :param gain: Floor with all tokens over this floor: what pruning can gain at best.
    :param percent: Of the limit that the measurement reaches, 100 x floor / measured.
    """

    kept: int
    sequence: int
    stages: dict[str, Stage]
    floor_ms: float
    target_ms: float
    gain: float
    measured_ms: float | None = None
    percent: float | None = None


@dataclass(frozen=True)
class GpuPlan:
    """One precision on one GPU.

    :param balance_tokens: S*, the sequence length below which the language model's weights take
        longer to read than to multiply, so that pruning gains nothing (attention left out:
        it is under 5 per cent of the FLOPs).
    :param target_balance: The same at the target rates, which are what is reached; hence the
        buckets go by it.
    :param weights_gb: Weights in the GPU's memory [GB].
    :param copies: How often they fit into the memory; None when its size is not known.
    :param buckets: Numbers of visual tokens worth an engine shape, ascending, all tokens last.
    """

    precision: Precision
    balance_tokens: float
    target_balance: float
    weights_gb: float
    copies: int | None
    buckets: list[int]
    rows: list[Row]


@dataclass(frozen=True)
class Recommendation:
    """What to build and why; ``precision`` is None when its weights do not fit."""

    precision: str | None
    buckets: list[int]
    reasons: list[str]


def precisions(gpu: Gpu) -> list[Precision]:
    """Return what the GPU can run, from most bits to fewest."""
    half = next(iter(gpu.peaks))
    found = [Precision(half, half, half, 16, 16)]
    found += [Precision(name, name, name, 8, 8) for name in ('fp8', 'int8') if name in gpu.peaks]
    # weights are unpacked to 16 bits in the kernel, so that any GPU will do
    found.append(Precision('w4a16', half, half, 16, FOUR_BITS))
    if 'fp4' in gpu.peaks:
        found.append(Precision('nvfp4', 'fp8', 'fp4', 8, FOUR_BITS))
    return found


def count_costs(config: VLAConfig, kept: Sequence[int], text: int) -> Costs:
    """Count FLOPs and parameters on the real modules, without weights (7B: about 5 s).

    :param kept: Numbers of visual tokens; all of them is counted in any case. Empty: all and 78.
    :param text: Text tokens: BOS, the prompt's words and stop.
    :raises ConfigError: When a count is impossible.
    :raises ModuleNotFoundError: Without torch.
    """
    from lightvla_ros.vla.flops import count_flops
    from lightvla_ros.vla.weights import used_shapes

    wanted = dict.fromkeys([*(kept or (config.patches, 78)), config.patches])
    rows = count_flops(config, list(wanted), text)
    parameters = dict.fromkeys(STAGES, 0)
    for name, shape in used_shapes(config).items():
        if 'embed_tokens' not in name:
            parameters[_stage_of(name)] += math.prod(shape)
    return Costs(
        parameters,
        {
            int(row['kept']): {
                'vision': row['towers'] + row['projector'] + row['pruner'],
                'llm': row['llm'],
                'head': row['head'],
            }
            for row in rows
        },
        config.patches,
        int(rows[0]['sequence'] - rows[0]['kept']),
    )


def _stage_of(parameter: str) -> str:
    return {'language_model': 'llm', 'action_head': 'head'}.get(parameter.split('.')[0], 'vision')


def make_plan(
    gpu: Gpu,
    precision: Precision,
    costs: Costs,
    kept: Sequence[int],
    measured: Sequence[float] | None = None,
) -> GpuPlan:
    """Compute the limits.

    :param precision: One of :func:`precisions` of this GPU.
    :param kept: Counts that ``costs`` holds.
    :param measured: Whole chunks [ms], one for each of ``kept``.
    """
    half = next(iter(gpu.peaks))
    types = {'vision': precision.vision, 'llm': precision.llm, 'head': half}
    bits = {'vision': precision.vision_bits, 'llm': precision.llm_bits, 'head': 16}
    gigabytes = {name: costs.parameters[name] * bits[name] / 8e9 for name in STAGES}

    def stages_of(number: int) -> dict[str, Stage]:
        return {
            name: _stage(
                costs.tflop[number][name] / gpu.peaks[types[name]] * 1e3,
                gigabytes[name] / gpu.bandwidth * 1e3,
            )
            for name in STAGES
        }

    unpruned = sum(each.floor_ms for each in stages_of(costs.patches).values())
    rows = []
    for number, ms in zip(kept, measured or [None] * len(kept), strict=True):
        stages = stages_of(number)
        floor = sum(each.floor_ms for each in stages.values())
        target = sum(each.target_ms for each in stages.values())
        percent = None if ms is None else 100 * floor / ms
        rows.append(
            Row(number, number + costs.others, stages, floor, target, unpruned / floor, ms, percent)
        )
    weights = sum(gigabytes.values())
    # a token costs 2 FLOPs per weight: 2 S / peak = bits / 8 / bandwidth
    balance = gpu.peaks[precision.llm] * precision.llm_bits / 16 / gpu.bandwidth * 1e3
    target_balance = balance * TARGET_FLOPS / TARGET_BANDWIDTH
    return GpuPlan(
        precision,
        balance,
        target_balance,
        weights,
        None if gpu.memory is None else int(gpu.memory * 2**30 / (weights * 1e9)),
        choose_buckets(target_balance, costs.others, costs.patches),
        rows,
    )


def _stage(flops_ms: float, bytes_ms: float) -> Stage:
    return Stage(
        max(flops_ms, bytes_ms),
        max(flops_ms / TARGET_FLOPS, bytes_ms / TARGET_BANDWIDTH),
        'FLOPs' if flops_ms >= bytes_ms else 'bytes',
    )


def choose_buckets(balance: float, others: int, patches: int) -> list[int]:
    """Return the numbers of visual tokens worth an engine shape, ascending.

    Below the balance one bucket does: a smaller one is no faster. Above it the sequences grow
    evenly, each by :data:`BUCKET_STEP` at most (before rounding), up to all tokens.

    :param balance: Length up to which the weights bind [tokens of the sequence].
    :param others: Tokens of the sequence besides the visual ones.
    :param patches: All visual tokens; always the last bucket.
    """
    longest = others + patches
    first = min(max(balance, BUCKET_STEP * (others + 1)), longest)
    steps = math.ceil(math.log(longest / first) / math.log(BUCKET_STEP))
    found = {patches}
    for index in range(steps):
        visual = first * (longest / first) ** (index / steps) - others
        # the first is rounded down: it must not cross the balance
        multiples = round(visual / BUCKET_MULTIPLE) if index else int(visual // BUCKET_MULTIPLE)
        found.add(min(max(multiples, 1) * BUCKET_MULTIPLE, patches))
    return sorted(found)


def recommend(gpu: Gpu, plans: Sequence[GpuPlan], costs: Costs) -> Recommendation:
    """Recommend what to build and say why: the first plan, if its weights fit.

    :param plans: The precision to build, then those of fewer bits to compare it with, all of the
        same counts. Precisions of fewer than 16 bits other than fp8 are limits to compare with: no
        engine here has them.
    """
    chosen, others = plans[0], plans[1:]
    name, half = chosen.precision.name, precisions(gpu)[0].name
    if chosen.copies == 0:
        reason = (
            f'{name} does not fit: {chosen.weights_gb:.1f} GB of weights, {gpu.memory:g} GiB of '
            'memory.'
        )
        return Recommendation(None, [], [reason, *_fewer_bits(chosen, others)])
    reasons = [_why_these_buckets(chosen, costs), *_fewer_bits(chosen, others)]
    if name == 'fp8':
        reasons.append(FP8)
    elif name != half:
        reasons.append(f'{name} was asked for, but is a limit only: this release builds {half}.')
    return Recommendation(name, chosen.buckets, reasons)


def _fewer_bits(chosen: GpuPlan, others: Sequence[GpuPlan]) -> list[str]:
    """Say, if there are others, what they could gain."""
    if not others:
        return []
    fewest = min(chosen.rows, key=lambda row: row.kept)
    gains = [
        fewest.target_ms / min(each.rows, key=lambda row: row.kept).target_ms for each in others
    ]
    listed = ', '.join(
        f'{each.precision.name} {gain:.1f}x' for each, gain in zip(others, gains, strict=True)
    )
    built = any(each.precision.name == 'fp8' for each in others)
    return [
        f'Fewer bits could gain at best, at {fewest.kept} kept tokens: {listed}. Of these, this '
        f'release has {"fp8, in torch-cuda" if built else "none"}.'
    ]


def _why_these_buckets(plan: GpuPlan, costs: Costs) -> str:
    balance, others = plan.target_balance, costs.others
    if plan.buckets[0] == costs.patches:
        return (
            f'At the target rates the LLM waits for its weights up to {balance:.0f} tokens, and '
            f'the whole sequence has {others + costs.patches}: pruning gains nothing, one bucket '
            'does.'
        )
    if balance >= others + BUCKET_MULTIPLE:
        return (
            f'At the target rates the LLM waits for its weights up to {balance:.0f} tokens '
            f'({balance - others:.0f} of them visual): fewer gain nothing; above, each token costs.'
        )
    return (
        f'At the target rates FLOPs bind the LLM from {balance:.0f} tokens on, and {others} are '
        'not visual: every pruned token gains.'
    )
