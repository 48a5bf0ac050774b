"""What a run would be: checked as far as its configuration goes, with its estimated memory."""

from __future__ import annotations

from pathlib import Path

from lightvla_ros.train.batches import check_noise
from lightvla_ros.train.checkpoint import check_unused
from lightvla_ros.train.config import TrainConfig
from lightvla_ros.train.estimate import Estimate, estimate
from lightvla_ros.train.model_config import ModelPlan, plan_model
from lightvla_ros.train.paraphrases import read_rules
from lightvla_ros.vla.config import VLAConfig

MIB, GIB = 2**20, 2**30
# Random weights of the 7B's shapes kept 161 to 211 of 512 tokens of a batch's fullest frame
# (docs/how-to/train.md).
USUAL_SHARE = 3 / 8
# Peak memory on one H200, without DDP, by batch size: blocks kept, blocks recomputed [GiB]
MEASURED = {8: (38.8, 19.4), 16: (60.8, 21.2)}
MEASURED_COUNTS = 7_642_620_583, 275_798_023  # parameters, trained ones


def dry_run(config: TrainConfig, folder: Path, like: str | None = None) -> list[str]:
    """Check a run that would start in a folder, and return lines that describe it.

    Nothing is written, no weights are read, and data is only looked for.

    :param like: See :func:`plan_model`.
    :raises TrainError: When the folder holds a run, or the model is absent or does not fit.
    :raises ConfigError: When configuration and model do not fit.
    """
    check_unused(folder)
    if config.data.paraphrases is not None:
        read_rules(Path(config.data.paraphrases.rules))
    plan = plan_model(config, like)
    check_noise(config.proprio_noise, plan.config.proprio_size)
    found = estimate(config, plan.config, plan.numbers, _kept(plan.config))
    return [
        f'{config.name}: a dry run, in which nothing is loaded or written',
        *_described(config, plan, found),
        *_memory(config, plan.config, found),
    ]


def _kept(config: VLAConfig) -> list[int]:
    """Return a usual and the largest number of visual tokens that the decoder sees."""
    if config.pruning.method == 'off':
        return [config.patches]
    if config.fixed_kept is not None:
        return [config.fixed_kept]
    most = config.patches
    if config.pruning.method != 'lightvla':
        most = min(most, config.pruning.queries)
    return [max(1, round(USUAL_SHARE * most)), most]


def _described(config: TrainConfig, plan: ModelPlan, found: Estimate) -> list[str]:
    named = [each for source in config.data.paths for each in (source.path, source.mapping)]
    absent = [each for each in named if each is not None and not Path(each).exists()]
    types = ' and '.join(sorted({str(each)[len('torch.') :] for each in plan.numbers.values()}))
    trained = 'all weights'
    if config.lora is not None:
        trained = f'LoRA of rank {config.lora.rank}, and the heads'
        types += ', trained ones float32'
    elif config.freeze_tokens:
        trained = 'the decoder and the head'
    elif config.learn == 'tokens':
        trained = 'towers and projector'
    elif config.freeze_towers:
        trained = 'all weights but the towers'
    rows = {
        'shapes': f'of {plan.origin}',
        'data': ', '.join(f'{path} is not there yet' for path in absent) or 'is there, not read',
        'trained': trained,
        **{f'  {part}': _count(found, part) for part in found.counts},
        'step': f'{config.batch_size} frames on each GPU'
        + f', {config.accumulate} times' * (config.accumulate > 1)
        + f'; {config.steps} steps; {config.optimizer.name}; parallel {config.parallel}',
        'precision': f'weights {types}; {"bf16" if config.autocast else "no"} autocast',
        'blocks': 'recomputed in the backward pass'
        if config.gradient_checkpointing
        else 'kept for the backward pass',
    }
    return [f'  {name:11} {text}' for name, text in rows.items()]


def _count(found: Estimate, part: str) -> str:
    count = found.counts[part]
    return f'{count.all:13,} parameters, {count.trained:13,} trained ({count.share:.2%})'


def _memory(config: TrainConfig, model: VLAConfig, found: Estimate) -> list[str]:
    buckets = ' and DDP buckets' * (config.parallel == 'ddp')
    parts = {
        'frozen weights': found.frozen,
        'trained weights': found.trained,
        'running mean of them': found.mean,
        f'gradients{buckets}': found.gradients,
        'optimizer states': found.states,
    }
    rows = [(name, size, size) for name, size in parts.items() if size]
    for text, fixed in (('activations', 0), ('total', found.fixed)):
        rows += [
            (
                f'{text}, {each.kept} of {model.patches} tokens',
                fixed + each.plain,
                fixed + each.recomputed,
            )
            for each in found.activations
        ]
    unit, divisor = ('GiB', GIB) if rows[-1][1] > GIB else ('MiB', MIB)
    lines = [
        f'  {name:40} {plain / divisor:12.2f} {again / divisor:12.2f}'
        for name, plain, again in rows
    ]
    counts = found.counts['all']
    if (counts.all, counts.trained) == MEASURED_COUNTS and config.batch_size in MEASURED:
        plain, again = MEASURED[config.batch_size]
        lines.append(f'  {"measured on an H200, without DDP":40} {plain:12.2f} {again:12.2f}')
    if config.parallel == 'fsdp2':
        lines.append('  FSDP2 divides all but the activations by the number of GPUs.')
    title = f'memory of each GPU [{unit}]'
    return [f'  {title:40} {"blocks kept":>12} {"recomputed":>12}', *lines]
