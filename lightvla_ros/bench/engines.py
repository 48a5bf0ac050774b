"""Measures the engines of a policy folder, pruned and unpruned, against eager PyTorch."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightvla_ros.bench.chunk_runner import ChunkRunner, ChunkTimes
from lightvla_ros.bench.load_watch import LoadWatch
from lightvla_ros.bench.timing import (
    MatrixProduct,
    gflop_per_second,
    has_torch,
    percentiles_ms,
    ratio_p50,
    take_turns,
)
from lightvla_ros.contract import Manifest, load_manifest
from lightvla_ros.errors import BenchError, ContractError, EngineError
from lightvla_ros.machine import has_bf16, measured_with
from lightvla_ros.policy.golden_file import read_golden
from lightvla_ros.policy.observation import Observation, observations
from lightvla_ros.policy.policy import Policy
from lightvla_ros.verify.variants import Variant, variants

WARM_UP = 5  # rounds


@dataclass(frozen=True)
class PolicyBench:
    """Options of the measurement.

    :param kept: Visual tokens of a pruned chunk, K; the mean of the golden observations when None.
    :param engine: Only engines of this name; all when None.
    :param provider: Only this execution provider of ONNX Runtime; all engines when None.
    """

    policy: Path
    rounds: int
    threads: int
    kept: int | None = None
    engine: str | None = None
    provider: str | None = None


@dataclass(frozen=True)
class EngineSamples:
    """Times of an engine [s] in every round, by number of visual tokens."""

    runner: ChunkRunner
    rounds: list[dict[int, ChunkTimes]]

    def encode(self) -> list[float]:
        """Return the times of every encode, which are the same for all sizes."""
        return [each.encode for times in self.rounds for each in times.values()]

    def act(self, size: int) -> list[float]:
        """Return the times of every act with a number of tokens."""
        return [times[size].act for times in self.rounds]

    def chunk(self, size: int) -> list[float]:
        """Return the times of every chunk with a number of tokens."""
        return [times[size].encode + times[size].act for times in self.rounds]

    def host(self) -> list[float]:
        """Return every chunk's time outside the graphs; empty if it is unknown."""
        times = [each.host for times in self.rounds for each in times.values()]
        return [each for each in times if each is not None]


@dataclass(frozen=True)
class EngineRow:
    """The figures of one engine; times are percentiles in milliseconds.

    :param kept: Visual tokens of a pruned chunk, K.
    :param bucket: Visual tokens that ``act`` ran with for them.
    :param act: By number of visual tokens.
    :param pruned: ``encode`` and ``act`` with K tokens; ``unpruned`` with all of them.
    :param ratio_p50: Pruned over unpruned, medians; ``ratio_min`` of the quickest ones, which says
        more where others use the machine.
    :param host_ms: Time of the calls outside the graphs; None if unknown.
    :param matrix_share: Share of the machine's own matrix rate, pruned and unpruned, by the FLOPs
        that K tokens need; None where one of both is unknown.
    :param against_torch: Speed-up over eager PyTorch with the same number of threads, and PyTorch's
        precision; None if PyTorch was not measured.
    """

    engine: str
    backend: str
    precision: str
    threads: int
    kept: int
    bucket: int
    encode: dict[str, float]
    act: dict[str, dict[str, float]]
    pruned: dict[str, float]
    unpruned: dict[str, float]
    ratio_p50: float
    ratio_min: float
    host_ms: dict[str, float] | None
    matrix_share: dict[str, float] | None
    against_torch: dict[str, Any] | None


def measure_policy(options: PolicyBench) -> dict[str, Any]:
    """Measure, and return a document for JSON.

    :raises BenchError: When an option is invalid.
    :raises ContractError: When the folder cannot be trusted or holds no graphs.
    """
    manifest = load_manifest(options.policy)
    if manifest.graphs is None or manifest.golden is None:
        raise ContractError(
            f'{options.policy}: holds no exported graphs, so there is no engine yet; export it '
            f'first: lightvla export --policy {options.policy} --out DIR'
        )
    observation, mean_kept = _golden(options.policy, manifest)
    patches = manifest.tokens.buckets[-1]
    kept = mean_kept if options.kept is None else options.kept
    if not 1 <= kept <= patches:
        raise BenchError(f'--kept {kept}: the policy has 1 to {patches} visual tokens')
    chosen = _choose(manifest, options)
    watch = LoadWatch(options.threads)
    with ExitStack() as stack:
        runners, not_here = _load(chosen, options, observation, kept)
        for runner in runners:
            stack.callback(runner.close)
        if not runners:
            raise BenchError(f'no engine could be loaded: {"; ".join(not_here)}')
        products = {number: MatrixProduct(number, options.threads) for number in _matrix_numbers()}
        results = take_turns(
            {
                **{runner: runner.turn for runner in runners},
                **{number: product.time for number, product in products.items()},
                'prepare': runners[0].time_prepare,
            },
            options.rounds,
            WARM_UP,
        )
    samples = [EngineSamples(runner, results[runner]) for runner in runners]
    rates = {number: gflop_per_second(results[number]) for number in products}
    tflop = _count(manifest, kept)
    rows = [_row(each, rates, tflop, options.threads, kept, _torch_of(samples)) for each in samples]
    return {
        'machine': measured_with(options.threads) | {'matrix_gflop_per_second': rates},
        'load': watch.report(),
        'policy': str(options.policy),
        'kept': kept,
        'patches': patches,
        'rounds': options.rounds,
        'tflop': tflop,
        'prepare': percentiles_ms(results['prepare']),
        'rows': [asdict(row) for row in rows],
        'not_here': not_here,
    }


def _golden(policy_dir: Path, manifest: Manifest) -> tuple[Observation, int]:
    """Return the first golden observation, and the mean number of tokens kept of all."""
    golden = read_golden(policy_dir, manifest)
    return observations(manifest, golden)[0], round(float(golden['kept'].sum(1).mean()))


def _load(
    chosen: list[Variant], options: PolicyBench, observation: Observation, kept: int
) -> tuple[list[ChunkRunner], list[str]]:
    """Return the engines that can be loaded, and a line for each one that cannot."""
    runners, not_here = [], []
    for each in chosen:
        try:
            policy = Policy.load(
                options.policy, each.name, options.threads, unchecked=True, **each.options
            )
        except EngineError as error:
            not_here.append(f'{each}: {error}')
            continue
        runners.append(ChunkRunner(each.name, policy, observation, kept))
    return runners, not_here


def _choose(manifest: Manifest, options: PolicyBench) -> list[Variant]:
    found = variants(manifest)
    if manifest.model is not None and has_torch():
        numbers = _torch_numbers(manifest, options.policy)
        found += [
            Variant('torch', number, {'precision': number}, 'torch-cpu') for number in numbers
        ]
    if options.provider is not None:
        # here, since a robot may have another engine alone
        from lightvla_ros.engine.onnxruntime import check_provider

        check_provider(options.provider)
        found = [each for each in found if each.options.get('provider') == options.provider]
    chosen = [each for each in found if options.engine in (None, each.name)]
    if not chosen:
        names = ', '.join(dict.fromkeys(each.name for each in found))
        raise BenchError(f'--engine {options.engine}: this folder and this machine have {names}')
    return chosen


def _torch_numbers(manifest: Manifest, policy_dir: Path) -> list[str]:
    """Return what eager PyTorch is timed in: as weights are stored, and bf16 where it is quick.

    In fp32 the engine would convert weights that are stored otherwise in every call.
    """
    from lightvla_ros.vla.weights import NUMBERS, StoredWeights

    weights = StoredWeights(policy_dir, manifest.model.weights)
    stored = weights[next(iter(weights))].dtype
    numbers = [name for name, number in NUMBERS.items() if number == stored]
    return list(dict.fromkeys([*numbers, *(['bf16'] if has_bf16() else [])]))


def _matrix_numbers() -> list[str]:
    """Return the precisions whose matrix rate is a useful yardstick here."""
    return ['fp32', 'bf16'] if has_bf16() and has_torch() else ['fp32']


def _count(manifest: Manifest, kept: int) -> dict[str, float] | None:
    """Count TFLOP of a pruned and an unpruned chunk."""
    if manifest.model is None or not has_torch():
        return None
    from lightvla_ros.vla.flops import count_flops
    from lightvla_ros.vla.weights import config_of

    config = config_of(manifest)
    # the prompt's length counts BOS and not stop
    rows = count_flops(config, [kept, config.patches], manifest.prompt.length + 1)
    pruned, unpruned = (row['tflop'] for row in rows)
    return {'pruned': pruned, 'unpruned': unpruned, 'ratio': round(pruned / unpruned, 4)}


def _torch_of(samples: list[EngineSamples]) -> EngineSamples | None:
    """Return the samples of eager PyTorch in the numbers its weights are stored in: the first."""
    return next((each for each in samples if each.runner.name == 'torch'), None)


def _row(
    samples: EngineSamples,
    rates: dict[str, float],
    tflop: dict[str, float] | None,
    threads: int,
    kept: int,
    torch: EngineSamples | None,
) -> EngineRow:
    runner, engine = samples.runner, samples.runner.engine
    chunks = {
        'pruned': samples.chunk(runner.pruned),
        'unpruned': samples.chunk(runner.sizes[-1]),
    }
    rate = rates.get(engine.precision) if engine.backend.endswith('-cpu') else None
    share = against = None
    if rate is not None and tflop is not None:
        share = {
            name: round(tflop[name] * 1e3 / float(np.median(seconds)) / rate, 4)
            for name, seconds in chunks.items()
        }
    if torch is not None:
        against = {
            'precision': torch.runner.engine.precision,
            'pruned': ratio_p50(torch.chunk(torch.runner.pruned), chunks['pruned']),
            'unpruned': ratio_p50(torch.chunk(torch.runner.sizes[-1]), chunks['unpruned']),
        }
    host = samples.host()
    return EngineRow(
        engine=runner.name,
        backend=engine.backend,
        precision=engine.precision,
        threads=threads,
        kept=kept,
        bucket=runner.pruned,
        encode=percentiles_ms(samples.encode()),
        act={str(size): percentiles_ms(samples.act(size)) for size in runner.sizes},
        pruned=percentiles_ms(chunks['pruned']),
        unpruned=percentiles_ms(chunks['unpruned']),
        ratio_p50=ratio_p50(chunks['pruned'], chunks['unpruned']),
        ratio_min=round(min(chunks['pruned']) / min(chunks['unpruned']), 4),
        host_ms=percentiles_ms(host) if host else None,
        matrix_share=share,
        against_torch=against,
    )
