"""Configuration of a training run. An invalid or unknown setting raises an error at the start."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any

from lightvla_ros.errors import ConfigError
from lightvla_ros.train.config_sources import DataConfig, ModelSource
from lightvla_ros.train.field_checks import negative, not_one_of, not_positive
from lightvla_ros.vla.config import NOISE_SCHEDULES

OPTIMIZERS = ('adamw', 'muon')
LEARNING_RATES = ('step', 'cosine', 'constant')
CHOICES = {
    'parallel': ('none', 'ddp', 'fsdp2'),
    'copies': ('counted', 'once'),
    'learn': ('actions', 'tokens'),
    'attention': ('auto', 'plain'),
}


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser and its schedule.

    :param name: ``adamw``, or ``muon``: Muon for the matrices of towers, projector and decoder,
        AdamW for embeddings, norms, biases and heads.
    :param lr: Learning rate of AdamW.
    :param muon_lr: Learning rate of Muon, whose updates are scaled to the size of AdamW's; None
        uses ``lr``.
    :param weight_decay: Weight decay of matrices; embeddings, norms and biases have none.
    :param clip_norm: Largest norm of the gradient; 0 turns clipping off.
    :param warmup: Steps in which the learning rate rises from 0.
    :param schedule: ``step`` (times ``gamma`` at each of ``milestones``), ``cosine`` (to 0 at the
        last step) or ``constant``.
    """

    name: str = 'adamw'
    lr: float = 5e-4
    muon_lr: float | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    clip_norm: float = 0.0
    warmup: int = 0
    schedule: str = 'step'
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1

    def problems(self) -> list[str]:
        """Return a line for each invalid field."""
        found = not_positive(self, ('lr', 'gamma'))
        found += negative(self, ('weight_decay', 'clip_norm', 'warmup'))
        found += not_one_of(self, {'name': OPTIMIZERS, 'schedule': LEARNING_RATES})
        if self.muon_lr is not None:
            found += not_positive(self, ('muon_lr',))
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            found.append(f'betas {list(self.betas)} must be two numbers in [0, 1)')
        if self.milestones and self.schedule != 'step':
            found.append(f'milestones need schedule step, not {self.schedule}')
        if self.schedule == 'step' and list(self.milestones) != sorted(set(self.milestones)):
            found.append(f'milestones {list(self.milestones)} must ascend')
        return found


@dataclass(frozen=True)
class NoiseConfig:
    """The pruner's noise in training, U(0, alpha).

    :param schedule: See ``vla.config.noise_bound``.
    :param scale: Factor on alpha. Scores span +-sqrt(D), so 1.0 has less effect in a wide model.
    """

    schedule: str = 'linear'
    scale: float = 1.0

    def problems(self) -> list[str]:
        """Return a line for each invalid field."""
        return not_one_of(self, {'schedule': NOISE_SCHEDULES}) + negative(self, ('scale',))


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes to training images, per camera; ``off`` or ``published`` in a file.

    The published changes are those of OpenVLA-OFT's prismatic/vla/datasets
    (``docs/how-to/train.md``).

    :param crop: A random crop of 90 % of the area; the policy then crops the centre.
    :param colour: Brightness, contrast, saturation and hue.
    :param things: Share of the frames whose things get other colours (``recolour.py``), which is
        not among the published changes. Frames without segmentation only get other light.
    """

    crop: bool = True
    colour: bool = True
    things: float = 0.0

    @property
    def any(self) -> bool:
        """Whether images are changed at all."""
        return self.crop or self.colour or self.things > 0

    def problems(self) -> list[str]:
        """Return a line for each invalid field."""
        return [] if 0 <= self.things <= 1 else [f'things {self.things} is not in [0, 1]']


@dataclass(frozen=True)
class AlignmentConfig:
    """The loss that makes patches similar to words for their objects; see ``alignment.py``.

    :param weight: Weight of this loss relative to the L1 loss; 0 leaves it out.
    :param where: Weight of the position error (``alignment.py``) relative to this loss.
    :param only_steps: Number of first steps that train encoder and words by this loss alone.
    :param background: Word for background patches. Choose a word that never occurs in a
        prompt, so that no query selects background patches by name.
    :param names: Words for simulator objects that are not in ``object_words.py``.
    """

    weight: float = 0.0
    where: float = 0.0
    only_steps: int = 0
    background: str = '<pad>'
    names: dict[str, str] = field(default_factory=dict)

    @property
    def used(self) -> bool:
        """Whether this loss is computed."""
        return self.weight > 0 or self.only_steps > 0

    def problems(self) -> list[str]:
        """Return a line for each invalid field."""
        return negative(self, ('weight', 'where', 'only_steps'))


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters on all linear layers except the heads, merged when a policy is written.

    :param alpha: Deltas are scaled by alpha / rank.
    :param reinitialise_heads: Start with new weights in action head and proprio projector, as in
        the released code.
    """

    rank: int = 32
    alpha: float = 16.0
    dropout: float = 0.0
    reinitialise_heads: bool = False

    def problems(self) -> list[str]:
        """Return a line for each invalid field."""
        found = not_positive(self, ('rank', 'alpha'))
        if not 0 <= self.dropout < 1:
            found.append(f'dropout {self.dropout} is not in [0, 1)')
        return found


@dataclass(frozen=True)
class CheckpointEvery:
    """Interval of checkpoints: the first limit reached counts, and 0 turns one off.

    A checkpoint is always written at the end.
    """

    steps: int = 0
    minutes: float = 10.0

    def problems(self) -> list[str]:
        """Return a line for each invalid field."""
        return negative(self, ('steps', 'minutes'))


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    :param name: Name of the policy that is written.
    :param batch_size: Frames in one gradient computation of one process.
    :param accumulate: Gradient computations per update of the weights.
    :param proprio_noise: Standard deviation of noise on each number of the state, in its unit (m,
        rad); empty for none. Without noise, a policy reaches for the usual positions of objects
        instead of using the images.
    :param proprio_dropout: Probability that a state is replaced by zeros.
    :param autocast: Compute with PyTorch's autocast to bf16.
    :param ema: Decay of the running mean of the weights, which is evaluated and written; 0 is off.
    :param interpolation: Where between the initial (0) and the trained (1) weights the exported
        weights lie. Evaluation always uses the trained ones (``weights.py``).
    :param threads: Threads of PyTorch; 0 keeps its default.
    :param freeze_towers: Train everything except the vision towers; without augmentation their
        features are computed only once.
    :param freeze_tokens: Train the decoder and the head alone, so that every visual token and the
        choice among them stay as they are (pruning ``off`` or ``lightvla``).
    :param learn: ``actions``, or ``tokens``: towers and projector alone learn to give the start's
        visual tokens for things in other colours (``token_teacher.py``; needs ``augment.things``
        and pruning ``lightvla``).
    :param copies: Whether attention in training sees a token as often as it was picked
        (``counted``, as in the released code), or once, as at inference (``once``).
    :param attention: ``auto`` (PyTorch chooses) or ``plain`` (matrix products and softmax).
    """

    model: ModelSource
    data: DataConfig
    steps: int
    name: str = 'trained'
    batch_size: int = 32
    accumulate: int = 1
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    lora: LoraConfig | None = None
    proprio_noise: tuple[float, ...] = ()
    proprio_dropout: float = 0.0
    autocast: bool = False
    ema: float = 0.0
    interpolation: float = 1.0
    seed: int = 0
    threads: int = 0
    log_every: int = 100
    checkpoint_every: CheckpointEvery = field(default_factory=CheckpointEvery)
    parallel: str = 'none'
    gradient_checkpointing: bool = False
    freeze_towers: bool = False
    freeze_tokens: bool = False
    learn: str = 'actions'
    copies: str = 'counted'
    compile: bool = False
    attention: str = 'auto'

    def __post_init__(self) -> None:
        problems = []
        for each in fields(self):
            part = getattr(self, each.name)
            if is_dataclass(part):
                problems += [f'{each.name}.{problem}' for problem in part.problems()]
        problems += not_positive(self, ('steps', 'batch_size', 'accumulate', 'log_every'))
        problems += negative(self, ('seed', 'threads'))
        if not all(math.isfinite(each) and each >= 0 for each in self.proprio_noise):
            problems.append(f'proprio_noise {list(self.proprio_noise)} must not be negative')
        problems += not_one_of(self, CHOICES)
        for name in ('proprio_dropout', 'ema'):
            if not 0 <= getattr(self, name) < 1:
                problems.append(f'{name} {getattr(self, name)} is not in [0, 1)')
        if not 0 < self.interpolation <= 1:
            problems.append(f'interpolation {self.interpolation} is not in (0, 1]')
        if self.interpolation < 1 and (self.model.start is None or self.lora):
            problems.append(
                'interpolation: needs model.from, and excludes lora (lower lora.alpha instead)'
            )
        if self.freeze_tokens and self.alignment.used:
            problems.append('freeze_tokens: excludes alignment, which trains the visual tokens')
        problems += self._problems_of_tokens()
        if self.alignment.only_steps > self.steps:
            problems.append(
                f'alignment.only_steps {self.alignment.only_steps} is more than steps {self.steps}'
            )
        for name in ('freeze_towers', 'freeze_tokens'):
            if getattr(self, name) and self.lora:
                problems.append(f'{name}: excludes lora, which trains only adapters')
            if getattr(self, name) and self.parallel != 'none':
                problems.append(f'{name}: works only in one process; set parallel to none')
        if problems:
            raise ConfigError('; '.join(problems))

    def _problems_of_tokens(self) -> list[str]:
        if self.learn != 'tokens':
            return []
        wanted = {
            'a start: set model.from': self.model.start is not None,
            'things in other colours: set augment.things': self.augment.things > 0,
            'pictures as recorded: set augment.crop and colour to false': not (
                self.augment.crop or self.augment.colour
            ),
            'towers: leave freeze_towers, freeze_tokens and lora out': not (
                self.towers_frozen or self.lora
            ),
            'no alignment: set its weight and only_steps to 0': not self.alignment.used,
        }
        return [f'learn tokens needs {need}' for need, met in wanted.items() if not met]

    @property
    def segmentation_used(self) -> bool:
        """Whether training needs to know what each pixel shows."""
        return self.alignment.used or self.augment.things > 0

    @property
    def towers_frozen(self) -> bool:
        """Whether the towers stay as they are."""
        return self.freeze_towers or self.freeze_tokens

    def to_dict(self) -> dict[str, Any]:
        """Return plain values with the file's names; ``config_file.from_dict`` is the inverse."""
        document = _plain(asdict(self))
        document['model']['from'] = document['model'].pop('start')
        return document


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
