"""Estimates the GPU memory of a training run from shapes alone, before its weights are loaded.

The run's own model, adapters, losses and optimisers are built from PyTorch's fake tensors, which
have a shape and a type but no numbers. Their gradients and optimiser states are counted, and one
forward pass shows what autograd keeps for the backward pass. The sum leaves out the temporary
tensors of the backward pass, the allocator's gaps, and the memory of CUDA itself; on the other hand
it counts all gradients at the time when the activations are largest.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lightvla_ros.train.alignment import Aligner
from lightvla_ros.train.config import TrainConfig
from lightvla_ros.train.losses import Batch, Losses
from lightvla_ros.train.object_words import WORDS
from lightvla_ros.train.optim import make_optimizers
from lightvla_ros.train.preparation import blocks, choose_trained
from lightvla_ros.train.token_teacher import TokenTeacher
from lightvla_ros.train.tower_features import GivenFeatures
from lightvla_ros.train.weights import RunningMean
from lightvla_ros.vla.config import VLAConfig
from lightvla_ros.vla.model import LightVLA

PROMPT = 43  # positions of LIBERO's longest prompt; batches are cut to their longest
PAGE = 512  # bytes: PyTorch's CUDA allocator rounds up to this
PARTS = {
    'towers': ('vision_backbone.',),
    'projector': ('projector.',),
    'decoder': ('language_model.',),
    'heads': ('action_head.', 'proprio_projector.', 'queries.'),
}


@dataclass(frozen=True)
class Count:
    """Numbers of parameters: all, and those that are trained."""

    all: int
    trained: int

    @property
    def share(self) -> float:
        """Share that is trained, 0 to 1."""
        return self.trained / max(self.all, 1)


@dataclass(frozen=True)
class Activations:
    """What a batch and its forward pass leave for the backward pass [bytes].

    :param kept: Visual tokens of the batch's fullest frame, of those that the decoder may see.
    :param plain: If everything is kept.
    :param inputs: If blocks keep only their input.
    :param block: What the largest block keeps, which it does anew in the backward pass.
    """

    kept: int
    plain: int
    inputs: int
    block: int

    @property
    def recomputed(self) -> int:
        """Size with ``gradient_checkpointing``."""
        return self.inputs + self.block


@dataclass(frozen=True)
class Estimate:
    """Memory of one process of a run on its GPU [bytes].

    :param counts: Parameters by part, and of ``all`` parts.
    :param frozen: Weights that are not trained; ``trained`` those that are.
    :param mean: The running mean of the trained weights.
    :param gradients: Gradients, and with DDP their buckets, which are as large.
    :param states: States of the optimisers, as if every trained weight gets a gradient.
    :param activations: By the number of kept tokens, which must ascend.
    """

    counts: Mapping[str, Count]
    frozen: int
    trained: int
    mean: int
    gradients: int
    states: int
    activations: Sequence[Activations]

    @property
    def fixed(self) -> int:
        """All but the activations."""
        return self.frozen + self.trained + self.mean + self.gradients + self.states


def estimate(
    config: TrainConfig,
    model_config: VLAConfig,
    numbers: Mapping[str, torch.dtype],
    kept: Iterable[int],
    prompt: int = PROMPT,
) -> Estimate:
    """Estimate a run's memory.

    :param numbers: Type of each initial weight, by name.
    :param kept: Numbers of visual tokens that the batch's fullest frame keeps.
    :param prompt: Positions of the batch's longest prompt.
    :raises ConfigError: When configuration and model do not fit.
    """
    with torch.device('meta'):
        model = LightVLA(model_config)
        _set_types(model, numbers)
        choose_trained(model, config)
    with FakeTensorMode(), _Counter() as counter:
        _make_fake(model)
        losses = _losses(model, config)
        frozen = _size(weight for weight in losses.parameters() if not weight.requires_grad)
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        counts = _counts(model)
        mean = _size(RunningMean(model, config.ema).mean.values())
        states = _states(model, config)
        if config.towers_frozen and not config.augment.any:
            model.vision_backbone = GivenFeatures()
        activations = [
            _activations(losses, config, counter, each, prompt) for each in sorted(set(kept))
        ]
    size = _size(trained)
    return Estimate(
        counts=counts,
        frozen=frozen,
        trained=size,
        mean=mean,
        gradients=size * (2 if config.parallel == 'ddp' else 1),
        states=states,
        activations=activations,
    )


class _Counter(TorchDispatchMode):
    """Counts the bytes of all tensors that were made inside of it and are in use.

    :param kept: Answer to the only question that a forward pass asks about numbers, which fake
        tensors do not have: how many tokens the fullest frame keeps (``pruner.merge_copies``).
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self.kept = 1
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), named: Any = None
    ) -> Any:
        if function is torch.ops.prim.device.default:  # asked often
            return arguments[0].fake_device
        if function is torch.ops.aten._local_scalar_dense.default:
            return self.kept - 1  # the last token's place
        made = function(*arguments, **(named or {}))
        for each in tree_leaves(made):
            if isinstance(each, Tensor):
                self._add(each.untyped_storage())
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = -(-storage.nbytes() // PAGE) * PAGE
            self.bytes += self._sizes[key]
            weakref.finalize(storage, self._remove, key)

    def _remove(self, key: int) -> None:
        self.bytes -= self._sizes.pop(key)


def _set_types(model: nn.Module, numbers: Mapping[str, torch.dtype]) -> None:
    for name, weight in model.named_parameters():
        weight.data = weight.data.to(numbers[name])


def _make_fake(model: nn.Module) -> None:
    """Replace all parameters by fake ones, to which autocast and optimisers can be applied."""
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            fake = torch.empty(weight.shape, dtype=weight.dtype)
            setattr(module, name, nn.Parameter(fake, weight.requires_grad))


def _losses(model: LightVLA, config: TrainConfig) -> Losses:
    aligner = None
    if config.alignment.used:
        count = len(WORDS)  # the data may show fewer classes
        ids = [[1, 2]] * count
        language = model.config.language
        aligner = Aligner(ids, torch.ones(count) / count, language.width, model.config.cameras)
    alignment = config.alignment
    teacher = TokenTeacher(model) if config.learn == 'tokens' else None
    return Losses(model, aligner, alignment.weight, alignment.where, teacher).train()


def _states(model: nn.Module, config: TrainConfig) -> int:
    """Return the size of the states that the optimisers make in their first step."""
    for weight in model.parameters():
        if weight.requires_grad:
            weight.grad = torch.empty_like(weight)
    size = 0
    for optimizer in make_optimizers(model, config.optimizer):
        optimizer.step()
        size += _size(value for state in optimizer.state.values() for value in state.values())
        optimizer.zero_grad()
    return size


def _activations(
    losses: Losses, config: TrainConfig, counter: _Counter, kept: int, prompt: int
) -> Activations:
    """Run forward passes and see what is left of them."""
    counter.kept = kept
    alone = config.alignment.only_steps
    modes = ['alignment'] * (alone > 0) + ['both'] * (alone < config.steps)
    if losses.teacher is not None:
        modes = ['tokens']
    found = [_one_pass(losses, config, counter, prompt, mode) for mode in modes]
    return Activations(kept, *(max(each) for each in zip(*found, strict=True)))


def _one_pass(
    losses: Losses, config: TrainConfig, counter: _Counter, prompt: int, mode: str
) -> tuple[int, int, int]:
    """Return the sizes of :class:`Activations` for one pass."""
    grown, outputs, before = [], [], []

    def enter(*_: Any) -> None:
        before.append(counter.bytes)

    def leave(_block: nn.Module, _inputs: Any, output: Tensor) -> None:
        grown.append(counter.bytes - before.pop())
        outputs.append(output.nbytes)

    hooks = [
        hook
        for block in blocks(losses)
        for hook in (block.register_forward_pre_hook(enter), block.register_forward_hook(leave))
    ]
    start = counter.bytes
    batch = _batch(losses.model, config, prompt)
    with _attention(config), torch.autocast('cpu', torch.bfloat16, enabled=config.autocast):
        loss = losses(batch, config.noise.scale, mode)['loss']
    plain = counter.bytes - start
    for hook in hooks:
        hook.remove()
    del loss
    # a block's input is the output of the one before
    return plain, plain - sum(grown) + sum(outputs), max(grown)


def _batch(model: LightVLA, config: TrainConfig, prompt: int) -> Batch:
    """Return a batch of fake frames as ``batches.py`` makes it."""
    of, count = model.config, config.batch_size
    pixels = torch.empty(count, of.cameras, 6, of.image_size, of.image_size)
    if isinstance(model.vision_backbone, GivenFeatures):
        pixels = torch.empty(count, of.patches, of.vision_width)
    labels = places = found = None
    if config.alignment.used:
        labels = torch.zeros(count, of.patches, dtype=torch.int64)
    if config.alignment.used and config.alignment.where:
        places = torch.empty(count, of.patches, 2)
        found = torch.ones(count, of.patches, dtype=torch.bool)
    return Batch(
        pixels,
        torch.zeros(count, prompt, dtype=torch.int64),
        torch.ones(count, prompt, dtype=torch.bool),
        torch.empty(count, of.proprio_size) if of.proprio_size else None,
        torch.empty(count, of.chunk_length, of.action_size),
        labels,
        places,
        found,
        torch.empty_like(pixels) if config.learn == 'tokens' else None,
    )


def _attention(config: TrainConfig) -> AbstractContextManager:
    return sdpa_kernel(SDPBackend.MATH) if config.attention == 'plain' else nullcontext()


def _counts(model: nn.Module) -> dict[str, Count]:
    found = {}
    for part, prefixes in [*PARTS.items(), ('all', ('',))]:
        sizes = [
            (weight.numel(), weight.requires_grad)
            for name, weight in model.named_parameters()
            if name.startswith(prefixes)
        ]
        found[part] = Count(sum(n for n, _ in sizes), sum(n for n, trained in sizes if trained))
    return found


def _size(tensors: Iterable[Tensor]) -> int:
    return sum(each.nbytes for each in tensors)
