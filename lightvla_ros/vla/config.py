"""The model's configuration, and two presets. An invalid value raises at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from lightvla_ros.contract.robot import Robot
from lightvla_ros.errors import ConfigError

TRAINING_FREE = ('adp', 'dart')  # rules that keep a fixed share (training_free.py)
PRUNING = ('off', 'lightvla', 'lightvla_star_encoder', 'lightvla_star_llm', *TRAINING_FREE)
FORMULAS = ('published', 'paper')
SLICES = ('training', 'release')
NOISE_SCHEDULES = ('linear', 'constant', 'none')
STAR_LAYERS = (1, 2, 3)
MOST_LAYERS = 1000  # a mistyped configuration must not build a million layers


@dataclass(frozen=True)
class TowerConfig:
    """One vision transformer. The preset ``openvla-oft-7b`` follows timm's two models.

    :param depth: Blocks that the checkpoint holds; the last one is never run (see ``vision.py``).
    :param registers: Number of register tokens after the class token.
    :param class_token: Whether there is a class token (DINOv2: yes, SigLIP: no).
    :param layer_scale: Whether each branch of a block has a learned gain per channel (DINOv2).
    :param attention_pool: Whether the checkpoint holds a pooling head (SigLIP), which is dropped.
    :param gelu: ``exact`` or ``tanh``; timm runs both of OpenVLA's towers with ``exact``.
    """

    width: int
    depth: int
    heads: int
    mlp_width: int
    registers: int = 0
    class_token: bool = False
    layer_scale: bool = False
    attention_pool: bool = False
    gelu: str = 'exact'
    norm_eps: float = 1e-6

    def problems(self) -> list[str]:
        """Say what cannot be."""
        found = _not_positive(self, ('width', 'depth', 'heads', 'mlp_width', 'norm_eps'))
        if not found and self.width % self.heads:
            found.append(f'width {self.width} is not a multiple of heads {self.heads}')
        if self.depth == 1:
            found.append('depth must be 2 or more: the last block is not run')
        if self.registers < 0:
            found.append(f'registers {self.registers} is negative')
        if self.gelu not in ('exact', 'tanh'):
            found.append(f"gelu {self.gelu!r} is neither 'exact' nor 'tanh'")
        return found


@dataclass(frozen=True)
class LanguageConfig:
    """The LLaMA blocks. OpenVLA's rms_norm_eps is 1e-6, not LLaMA-2's 1e-5."""

    width: int = 4096
    layers: int = 32
    heads: int = 32
    mlp_width: int = 11008
    vocabulary: int = 32064
    norm_eps: float = 1e-6
    rope_theta: float = 10000.0

    def problems(self) -> list[str]:
        """Say what cannot be."""
        found = _not_positive(self, tuple(each.name for each in fields(self)))
        if not found and self.width % (2 * self.heads):
            found.append(f'width {self.width} is not a multiple of 2 x heads ({2 * self.heads})')
        return found


@dataclass(frozen=True)
class PrunerConfig:
    """How visual tokens are chosen.

    :param method: ``off``, ``lightvla``, ``lightvla_star_encoder``, ``lightvla_star_llm``, or, for
        a model that was trained with every token, ``adp`` or ``dart``.
    :param formula: For ``lightvla``: ``published`` (the released code, with non-learned RMS norms;
        ``docs/explanation/pruning.md``) or ``paper`` (its eq. 1 and 2 as printed).
    :param queries: For LightVLA*: the number of learnable queries N_q.
    :param layer: For ``lightvla_star_llm``: prune after this many decoder layers (1, 2 or 3).
    :param share: For ``adp`` and ``dart``: share of all patches that is kept, above 0 and below 1.
    """

    method: str = 'lightvla'
    formula: str = 'published'
    queries: int = 128
    layer: int = 1
    share: float | None = None

    @property
    def training_free(self) -> bool:
        """Whether a rule keeps a fixed share, which needs no training."""
        return self.method in TRAINING_FREE

    @property
    def name(self) -> str:
        """The method as ``--pruning`` takes it, such as ``adp:0.3``."""
        return f'{self.method}:{self.share:g}' if self.training_free else self.method

    def problems(self) -> list[str]:
        """Say what cannot be."""
        found = _not_positive(self, ('queries',))
        if self.training_free and not (type(self.share) is float and 0 < self.share < 1):
            found.append(f'share {self.share!r} of {self.method} is not above 0 and below 1')
        for name, allowed in (
            ('method', PRUNING),
            ('formula', FORMULAS),
            ('layer', STAR_LAYERS),
        ):
            if getattr(self, name) not in allowed:
                found.append(f'{name} {getattr(self, name)!r} is not one of {_listing(allowed)}')
        return found


@dataclass(frozen=True)
class VLAConfig:
    """The whole model.

    :param dino: The first tower, ``vision_backbone.featurizer``.
    :param siglip: The second tower, ``vision_backbone.fused_featurizer``.
    :param projector_width: First hidden width of the projector (4 x the towers' widths in OpenVLA).
    :param head_width: Hidden width of the L1 head.
    :param action_slice: Which hidden states the head reads; see ``model.py``.
    :param film: Whether the language modulates the towers' blocks (off for LIBERO).
    """

    dino: TowerConfig
    siglip: TowerConfig
    language: LanguageConfig
    projector_width: int
    head_width: int
    pruning: PrunerConfig = field(default_factory=PrunerConfig)
    image_size: int = 224
    patch_size: int = 14
    cameras: int = 2
    proprio_size: int = 8
    chunk_length: int = 8
    action_size: int = 7
    action_slice: str = 'training'
    film: bool = False
    bos_id: int = 1
    stop_id: int = 2

    def __post_init__(self) -> None:
        problems = [
            f'{name}.{problem}'
            for name in ('dino', 'siglip', 'language', 'pruning')
            for problem in getattr(self, name).problems()
        ]
        problems += _not_positive(
            self,
            (
                'projector_width',
                'head_width',
                'image_size',
                'patch_size',
                'cameras',
                'chunk_length',
                'action_size',
            ),
        )
        if self.proprio_size < 0:
            problems.append(f'proprio_size {self.proprio_size} is negative; 0 means no proprio')
        if self.patch_size > 0 and self.image_size % self.patch_size:
            problems.append(
                f'image_size {self.image_size} is not a multiple of patch_size {self.patch_size}'
            )
        if self.action_slice not in SLICES:
            problems.append(f'action_slice {self.action_slice!r} is not one of {_listing(SLICES)}')
        for name in ('bos_id', 'stop_id'):
            if not 0 <= getattr(self, name) < self.language.vocabulary:
                problems.append(f'{name} {getattr(self, name)} is outside the vocabulary')
        if (
            self.pruning.method == 'lightvla_star_llm'
            and self.pruning.layer >= self.language.layers
        ):
            problems.append(
                f'pruning.layer {self.pruning.layer} leaves no layer after it: '
                f'language.layers is {self.language.layers}'
            )
        if not problems and self.pruning.training_free and self.fixed_kept < self.cameras:
            problems.append(
                f'pruning.share {self.pruning.share:g} keeps {self.fixed_kept} of {self.patches} '
                f'visual tokens, fewer than the {self.cameras} cameras'
            )
        if problems:
            raise ConfigError('; '.join(problems))

    @property
    def fixed_kept(self) -> int | None:
        """Number of visual tokens that a training-free rule keeps; None where it is not fixed."""
        if not self.pruning.training_free:
            return None
        return round(self.pruning.share * self.patches)

    @property
    def patches_per_camera(self) -> int:
        """Number of visual tokens per camera."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def patches(self) -> int:
        """Number of visual tokens of all cameras, Lv."""
        return self.cameras * self.patches_per_camera

    @property
    def vision_width(self) -> int:
        """Number of channels of a visual token before the projector, D'."""
        return self.dino.width + self.siglip.width

    @property
    def action_slots(self) -> int:
        """Number of placeholders in the sequence: one per number of the chunk."""
        return self.chunk_length * self.action_size

    def context_length(self, prompt_length: int) -> int:
        """Return the number of non-visual tokens: prompt with BOS, proprio, slots, stop."""
        return prompt_length + int(self.proprio_size > 0) + self.action_slots + 1

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain numbers and text, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> VLAConfig:
        """Inverse of :meth:`to_dict`.

        :raises ConfigError: When a field is unknown or missing, or a value is invalid.
        """
        parts = {
            'dino': TowerConfig,
            'siglip': TowerConfig,
            'language': LanguageConfig,
            'pruning': PrunerConfig,
        }
        try:
            return cls(
                **{
                    key: parts[key](**value) if key in parts else value
                    for key, value in document.items()
                }
            )
        except (TypeError, AttributeError) as error:
            raise ConfigError(f'model configuration: {error}') from None


def noise_bound(schedule: str, step: int, steps: int) -> float:
    """Return the upper bound alpha of the training noise U(0, alpha) (paper eq. 4 and 4.4.1).

    :param schedule: ``linear`` (1 to 0, as released: finetune.py, 1 - step / max_steps),
        ``constant`` (always 1) or ``none`` (always 0).
    :param step: From 0 to ``steps``.
    :raises ConfigError: When the schedule is unknown or the step is outside the run.
    """
    if schedule not in NOISE_SCHEDULES:
        raise ConfigError(f'noise schedule {schedule!r} is not one of {_listing(NOISE_SCHEDULES)}')
    if not 0 <= step <= steps:
        raise ConfigError(f'step {step} is outside 0 to {steps}')
    return {'linear': 1 - step / max(steps, 1), 'constant': 1.0, 'none': 0.0}[schedule]


def openvla_oft_7b(**changes: Any) -> VLAConfig:
    """Return the published model's: 7,541,237,184 parameters without head and proprio projector."""
    return VLAConfig(
        **{
            'dino': TowerConfig(
                width=1024,
                depth=24,
                heads=16,
                mlp_width=4096,
                registers=4,
                class_token=True,
                layer_scale=True,
            ),
            'siglip': TowerConfig(
                width=1152, depth=27, heads=16, mlp_width=4304, attention_pool=True
            ),
            'language': LanguageConfig(),
            'projector_width': 8704,
            'head_width': 4096,
            **changes,
        }
    )


def libero_tiny(**changes: Any) -> VLAConfig:
    """Return a small model of the same topology for two CPU cores: 128 px, 64 patches per camera.

    The decoder's share of the FLOPs is similar to the 7B's (81 % against 91 % unpruned), so pruning
    can save a similar share.
    """
    return VLAConfig(
        **{
            'dino': TowerConfig(
                width=128,
                depth=4,
                heads=4,
                mlp_width=512,
                registers=4,
                class_token=True,
                layer_scale=True,
            ),
            'siglip': TowerConfig(width=128, depth=4, heads=4, mlp_width=512),
            'language': LanguageConfig(width=256, layers=6, heads=4, mlp_width=512, vocabulary=512),
            'projector_width': 384,
            'head_width': 256,
            'pruning': PrunerConfig(queries=32),
            'image_size': 128,
            'patch_size': 16,
            **changes,
        }
    )


def libero_small(**changes: Any) -> VLAConfig:
    """Return ``libero_tiny`` with a larger decoder, whose time shows more of what pruning saves."""
    decoder = LanguageConfig(width=256, layers=8, heads=8, mlp_width=1024, vocabulary=512)
    return libero_tiny(**{'language': decoder, **changes})


PRESETS = {
    'openvla-oft-7b': openvla_oft_7b,
    'libero-tiny': libero_tiny,
    'libero-small': libero_small,
}


def preset(name: str, **changes: Any) -> VLAConfig:
    """Return a preset, with some fields changed.

    :raises ConfigError: When the name is unknown.
    """
    if name not in PRESETS:
        raise ConfigError(f'preset {name!r} is not one of {_listing(tuple(PRESETS))}')
    return PRESETS[name](**changes)


def robot_shapes(robot: Robot) -> dict[str, int]:
    """Return the fields of :class:`VLAConfig` that a robot's contract decides."""
    return {
        'cameras': len(robot.cameras),
        'proprio_size': len(robot.state_columns),
        'chunk_length': robot.action.chunk_length,
    }


def first_layers(config: VLAConfig, layers: int) -> VLAConfig:
    """Return a configuration with the same widths, but only ``layers`` decoder layers and blocks.

    :param layers: Number of decoder layers, and of the blocks of each tower that are run.
    :raises ConfigError: When the model has fewer decoder layers.
    """
    if not 1 <= layers <= config.language.layers:
        raise ConfigError(f'layers {layers} is not in 1 to {config.language.layers}')
    return replace(
        config,
        language=replace(config.language, layers=layers),
        # one more block than is run: the last block is never run
        dino=replace(config.dino, depth=min(layers + 1, config.dino.depth)),
        siglip=replace(config.siglip, depth=min(layers + 1, config.siglip.depth)),
    )


def _not_positive(config: Any, names: Sequence[str]) -> list[str]:
    kinds = {each.name: each.type for each in fields(config)}
    found = []
    for name in names:
        value, whole = getattr(config, name), kinds[name] == 'int'
        right = type(value) is int or (type(value) is float and not whole)
        # the bound refuses integers that are too large for a float
        if not right or not 0 < value < 1e12:
            found.append(f'{name} {value!r} must be a positive {"whole " * whole}number')
        elif name in ('layers', 'depth') and value > MOST_LAYERS:
            found.append(f'{name} {value} is above {MOST_LAYERS}')
    return found


def _listing(values: Sequence[Any]) -> str:
    return ', '.join(map(str, values))


def act_flops(config: VLAConfig, context: int, tokens: int) -> int:
    """Return the FLOPs of the decoder layers for a number of visual tokens, 2 per multiply-add.

    :param context: Number of non-visual tokens of the sequence.
    """
    language, length = config.language, context + tokens
    matrices = 4 * language.width**2 + 3 * language.width * language.mlp_width
    return language.layers * (2 * length * matrices + 4 * length**2 * language.width)
