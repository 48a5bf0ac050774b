"""A training run, from data to a policy folder."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint as recomputed

from lightvla_ros import __version__
from lightvla_ros.contract import MANIFEST_NAME
from lightvla_ros.demonstrations.statistics import normalise_actions, normalise_states
from lightvla_ros.errors import ConfigError, TrainError
from lightvla_ros.files import replace_whole, write_text
from lightvla_ros.machine import measured_with
from lightvla_ros.train.alignment import NO_LABEL, Aligner, patch_labels, patch_places
from lightvla_ros.train.bounds import cut_off
from lightvla_ros.train.checkpoint import CHECKPOINT, check_same, load_checkpoint, save_checkpoint
from lightvla_ros.train.config import TrainConfig
from lightvla_ros.train.data import Data, Gathered, Sampler, load_data, step_seed
from lightvla_ros.train.logs import Logs
from lightvla_ros.train.losses import Batch, Losses
from lightvla_ros.train.measurements import measure, places_of
from lightvla_ros.train.optim import (
    load_optimizers,
    make_optimizers,
    optimizers_state,
    rate_factor,
    set_rate,
)
from lightvla_ros.train.parallel import Place, any_of_all, gathering, spread, whole
from lightvla_ros.train.prompts import PromptTable, word_ids
from lightvla_ros.train.start import POLICY, start
from lightvla_ros.train.tower_features import TowerFeatures
from lightvla_ros.train.views import Viewer, Views
from lightvla_ros.train.weights import RunningMean, between, write_policy
from lightvla_ros.vla.config import noise_bound
from lightvla_ros.vla.language import LlamaBlock
from lightvla_ros.vla.vision import Block

CONFIG = 'config.yaml'
OBSERVATIONS = 'observations.npz'
GOLDEN_FRAMES = 6
FREQUENCY_FRAMES = 2048  # looked at to find out how often patches show each object


class Run:
    """A run in its folder.

    :param data: What :func:`load_data` returns; None reads it.
    :param resume: Go on from the folder's checkpoint, bit for bit as if nothing had happened.
    :raises TrainError: When it cannot start.
    :raises ConfigError: When the configuration does not fit the model.
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        place: Place,
        *,
        resume: bool = False,
        data: Data | None = None,
    ) -> None:
        self.config, self.folder, self.place = config, Path(folder), place
        self._path = self.folder / CHECKPOINT
        state = self._check_folder(resume)
        if config.threads:
            torch.set_num_threads(config.threads)
        alignment = config.alignment
        if data is None:
            data = load_data(config.data, alignment.names, alignment.used)
        self.data = data
        # only one process may write into the run's folder
        own = self.folder if place.rank == 0 else Path(tempfile.mkdtemp())
        begun = start(config, data.store, own)
        self.document, self.manifest, model = begun.document, begun.manifest, begun.model
        self.tokenizer = begun.tokenizer
        if config.lora is not None:
            from lightvla_ros.train.lora import add_adapters

            torch.manual_seed(config.seed)
            add_adapters(model, config.lora, config.autocast)
        self._report_cut_off()
        self._prompts = PromptTable(data.store.instructions, self.manifest.prompt, self.tokenizer)
        self._targets = torch.from_numpy(normalise_actions(data.store.chunks, self.manifest.action))
        self._proprio: Tensor | None = None
        if self.manifest.proprio is not None:
            states = normalise_states(data.store.proprio, self.manifest.proprio)
            self._proprio = torch.from_numpy(states)
        self._proprio_noise = self._normalised_noise()
        self._viewer = Viewer(
            self.manifest.cameras, self.manifest.preprocessing, config.augment.colour
        )
        if place.rank == 0 and not self._viewer.fits(data.store.image_shape[1:3]):
            print("images are turned or resized to the policy's in every step", flush=True)
        self.model = model
        losses = Losses(model, self._aligner(), alignment.weight, alignment.where)
        self.losses = losses.to(place.device)
        self._frozen: torch.nn.Module | None = None
        self._features: TowerFeatures | None = None
        if config.freeze_towers:
            self._frozen = model.vision_backbone.requires_grad_(False)
            if not config.augment.any:
                self._features = TowerFeatures(model, data.store, self._viewer, place.rank == 0)
        self.losses.train()  # a model that was loaded is in eval mode
        _prepare_blocks(model, config)
        self._module = spread(self.losses, config.parallel, place)
        self._optimizers = make_optimizers(model, config.optimizer)
        self._mean = RunningMean(model, config.ema)
        self._start: dict[str, Tensor] = {}
        if config.interpolation < 1:
            self._start = {name: weight.clone() for name, weight in self._trained().items()}
        self._sampler = Sampler(
            data.training,
            data.weights,
            config.batch_size * config.accumulate * place.world,
            config.seed,
        )
        self.step, self._seconds = 0, 0.0
        self._begun = self._mark = self._saved = time.perf_counter()
        if state is not None:
            self._load(state)
        self._stopped = False

    def stop(self) -> None:
        """Ask :meth:`train` to write a checkpoint and return after the present step."""
        self._stopped = True

    def train(self) -> bool:
        """Train to the last step, with logs and checkpoints, and write the policy.

        :returns: Whether the last step was reached.
        :raises TrainError: When the loss is no number any more.
        """
        config, logs = self.config, None
        if self.place.rank == 0:
            logs = Logs(self.folder, self._cameras, self.step)
        try:
            if self.step == 0:
                self._log(logs, {'step': 0.0, **self.evaluate()})
            sums: dict[str, list[float]] = {}
            self._begun = self._mark = self._saved = time.perf_counter()
            marked_step = self.step
            while self.step < config.steps and not any_of_all(self._stopped, self.place):
                for name, value in self.train_step().items():
                    sums.setdefault(name, []).append(value)
                if self.step % config.log_every == 0 or self.step == config.steps:
                    now = time.perf_counter()
                    figures = self._figures(sums, self.step - marked_step, now - self._mark)
                    figures |= self.evaluate()
                    self._log(logs, figures)
                    sums, marked_step, self._mark = {}, self.step, time.perf_counter()
                if self._due():
                    self.save()
        finally:
            if logs is not None:
                logs.close()
        self.save()
        if self.step < config.steps:
            return False
        if not (self.folder / POLICY / MANIFEST_NAME).exists():  # else it was stopped after that
            self.write_policy(self.folder / POLICY)
        if self.place.rank == 0 and len(self.data.held_out):
            self._write_observations(self.folder / OBSERVATIONS)
        return True

    def train_step(self) -> dict[str, float]:
        """Change the weights once; return the step's losses.

        :raises TrainError: When the loss is no number.
        """
        config = self.config
        set_rate(self._optimizers, rate_factor(config.optimizer, self.step, config.steps))
        figures = self.add_gradients()
        if not np.isfinite(figures['loss']):
            raise TrainError(
                f'step {self.step}: the loss is {figures["loss"]}; lower optimizer.lr or set '
                'optimizer.clip_norm, and go on from the last checkpoint'
            )
        if config.optimizer.clip_norm:
            weights = [weight for weight in self.model.parameters() if weight.requires_grad]
            norm = torch.nn.utils.clip_grad_norm_(weights, config.optimizer.clip_norm)
            figures['gradient_norm'] = float(whole(norm))
        for optimizer in self._optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self._mean.update(self.step)
        self.step += 1
        return figures

    def add_gradients(self) -> dict[str, float]:
        """Compute the gradients of the present step; return its losses."""
        config, step = self.config, self.step
        mode, alpha = self._phase(step)
        rows = self._sampler.rows(step).reshape(self.place.world, config.accumulate, -1)
        figures: dict[str, float] = {'alpha': alpha}
        for part in range(config.accumulate):
            # all that is random in this part follows from this seed: a run that goes on needs no
            # state of random numbers
            torch.manual_seed(step_seed(config.seed, step, self.place.rank, part))
            batch = self._training_batch(rows[self.place.rank, part])
            last = part == config.accumulate - 1
            with gathering(self._module, last), self._attention():
                with self._autocast():
                    found = self._module(batch, alpha, mode)
                (found['loss'] / config.accumulate).backward()
            for name in ('loss', 'l1', 'alignment', 'where', 'picks'):
                if name in found:
                    value = float(found[name].detach().float().mean())
                    figures[name] = figures.get(name, 0.0) + value / config.accumulate
        return figures

    def evaluate(self) -> dict[str, float]:
        """Measure the running mean of the weights on held-out frames."""
        alone = self.config.parallel != 'fsdp2'
        if not len(self.data.held_out) or (alone and self.place.rank):
            return {}
        mode = self._phase(max(self.step - 1, 0))[0]
        with self._mean.in_place(), self._autocast(), self._attention():
            return measure(self.losses, self._held_out_batches(), self._cameras, mode)

    def save(self) -> None:
        """Write the checkpoint."""
        now = time.perf_counter()
        self._seconds += now - self._begun
        self._begun = self._saved = now
        state = {
            'config': self.config.to_dict(),
            'step': self.step,
            'seconds': self._seconds,
            'world': self.place.world,
            'frames': len(self.data.store),
            'weights': self._trained(),
            'frozen': self._frozen_weights(),
            'mean': {name: whole(value) for name, value in self._mean.mean.items()},
            'start': self._start,
            'optimizers': optimizers_state(self.model, self._optimizers, self.config.parallel),
            'provenance': self._provenance(),
        }
        if self.place.rank == 0:
            save_checkpoint(self._path, state)

    def write_policy(self, folder: Path) -> None:
        """Write the policy folder."""
        mean = {name: whole(value) for name, value in self._mean.mean.items()}
        trained = mean or self._trained()
        if self._start:
            trained = between(self._start, trained, self.config.interpolation)
        weights = trained | self._frozen_weights()
        if self.config.lora is not None:
            from lightvla_ros.train.lora import merge_adapters, without_adapters

            frozen = {name: whole(value) for name, value in self.model.state_dict().items()}
            lora = self.config.lora
            weights = merge_adapters(without_adapters(frozen), trained, lora.alpha / lora.rank)
        if self.place.rank == 0:
            write_policy(folder, weights, self.document, self.tokenizer, self._provenance())

    def _write_observations(self, path: Path) -> None:
        """Write held-out frames for ``models/export_trt.py --observations``."""
        held_out, store = self.data.held_out, self.data.store
        rows = held_out[np.linspace(0, len(held_out) - 1, GOLDEN_FRAMES).astype(int)]
        frames = store.gather(rows, instances=False)
        instructions = [store.instructions[index] for index in frames.instruction]
        with replace_whole(path, frames.images.nbytes) as part:
            np.savez_compressed(
                part, images=frames.images, instruction=instructions, proprio=store.proprio[rows]
            )

    @property
    def _cameras(self) -> tuple[str, ...]:
        return tuple(camera.name for camera in self.manifest.cameras)

    def _check_folder(self, resume: bool) -> dict[str, Any] | None:
        """Return the checkpoint to go on from, or begin a folder."""
        if resume:
            state = load_checkpoint(self._path)
            check_same(self._path, state['config'], self.config.to_dict())
            if state['world'] != self.place.world:
                raise TrainError(f'{self._path}: of {state["world"]} processes; start as many')
            return state
        if self.place.rank == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            if self._path.exists():
                raise TrainError(
                    f'{self.folder}: holds a run; go on with --resume, or name another --out'
                )
            document = yaml.safe_dump(self.config.to_dict(), sort_keys=False)
            write_text(self.folder / CONFIG, document)
        return None

    def _load(self, state: dict[str, Any]) -> None:
        if state['frames'] != len(self.data.store):
            raise TrainError(
                f'{self._path}: of {state["frames"]} frames, now there are '
                f'{len(self.data.store)}: with other data begin a new run with model.from'
            )
        self.step, self._seconds = state['step'], state['seconds']
        for target, source in (
            (self._weights(), state['weights']),
            (self._mean.mean, state['mean']),
            (self._start, state['start']),
        ):
            if target.keys() != source.keys():
                name = sorted(target.keys() ^ source.keys())[0]
                raise TrainError(f'{self._path}: {name} is not in both checkpoint and model')
            for name, value in target.items():
                _assign(value, source[name])
        load_optimizers(self.model, self._optimizers, state['optimizers'], self.config.parallel)

    def _weights(self) -> dict[str, Tensor]:
        return {
            name: weight.detach()
            for name, weight in self.model.named_parameters()
            if weight.requires_grad
        }

    def _trained(self) -> dict[str, Tensor]:
        return {name: whole(weight) for name, weight in self._weights().items()}

    def _frozen_weights(self) -> dict[str, Tensor]:
        if self._frozen is None:
            return {}
        return self._frozen.state_dict(prefix='vision_backbone.')

    def _phase(self, step: int) -> tuple[str, float]:
        """Return the mode of the losses, and the noise bound alpha."""
        config, first = self.config, self.config.alignment.only_steps
        if step < first:
            return 'alignment', 0.0
        if self.model.config.pruning.method == 'off':
            return 'both', 0.0
        bound = noise_bound(config.noise.schedule, step - first, config.steps - first)
        return 'both', config.noise.scale * bound

    def _report_cut_off(self) -> None:
        if self.place.rank:
            return
        store = self.data.store
        shares = cut_off(store.chunks, store.proprio, self.manifest)
        if shares:
            parts = ', '.join(f'{100 * share:.2g} % of {name}' for name, share in shares.items())
            print(
                f"cut off, as it lies outside of the policy's bounds: {parts}; model.bounds: data "
                'would hold it all',
                flush=True,
            )

    def _normalised_noise(self) -> Tensor | None:
        """Return the standard deviation [S] of the noise on the normalised state, if any."""
        noise, spec = self.config.proprio_noise, self.manifest.proprio
        if not noise:
            return None
        size = 0 if spec is None else len(spec.q01)
        if len(noise) != size:
            raise ConfigError(f'proprio_noise: {len(noise)} numbers; the state has {size}')
        return 2 * torch.tensor(noise) / (torch.tensor(spec.q99) - torch.tensor(spec.q01))

    def _training_batch(self, rows: np.ndarray) -> Batch:
        frames = self.data.store.gather(rows, instances=self.config.alignment.used)
        batch = self._batch(rows, frames, self._viewer.training)
        proprio, config = batch.proprio, self.config
        if proprio is not None:
            if self._proprio_noise is not None:
                proprio += self._proprio_noise * torch.randn(proprio.shape)
            if config.proprio_dropout:
                proprio *= torch.rand(len(proprio), 1) >= config.proprio_dropout
        return batch.to(self.place.device)

    def _batch(
        self,
        rows: np.ndarray,
        frames: Gathered,
        view: Callable[[np.ndarray, np.ndarray | None], Views],
    ) -> Batch:
        index = torch.from_numpy(rows)
        ids, mask = self._prompts(frames.instruction)
        labels = None
        if self._features is None:
            views = view(frames.images, frames.instances)
        else:
            shown = None if frames.instances is None else torch.from_numpy(frames.instances)
            views = Views(self._features.of(index), shown)
        places = found = None
        if views.instances is not None:
            labels = self._labels(views.instances)
            if self.config.alignment.where:
                places, found = patch_places(*self._sampled(views.instances))
        proprio = None if self._proprio is None else self._proprio[index]
        return Batch(views.pixels, ids, mask, proprio, self._targets[index], labels, places, found)

    def _labels(self, instances: Tensor) -> Tensor:
        classes = self.data.store.classes
        shown, size = self._sampled(instances)
        table = torch.from_numpy(classes.of_instance)
        return patch_labels(table[shown.long()], size, len(classes.words))

    def _sampled(self, instances: Tensor) -> tuple[Tensor, int]:
        """Take every other pixel, a quarter of the work, and the size of a patch in those."""
        size = self.manifest.tokens.patch_size
        return (instances[..., ::2, ::2], size // 2) if size % 2 == 0 else (instances, size)

    def _held_out_batches(self) -> Iterator[tuple[Batch, Tensor | None]]:
        """Yield the same frames at every evaluation, in any run on the same data."""
        held_out, store = self.data.held_out, self.data.store
        count = min(len(held_out), self.config.data.held_out_frames)
        chosen = np.sort(np.random.default_rng(0).choice(held_out, count, replace=False))
        for first in range(0, count, self.config.batch_size):
            rows = chosen[first : first + self.config.batch_size]
            frames = store.gather(rows, instances=True)
            batch = self._batch(rows, frames, self._viewer.evaluation)
            places = None
            if batch.labels is not None:
                places = places_of(
                    batch.labels, frames.instruction, store.instructions, store.classes
                )
            yield batch.to(self.place.device), places

    def _aligner(self) -> Aligner | None:
        if not self.config.alignment.used:
            return None
        classes = self.data.store.classes
        if classes is None:
            raise TrainError('alignment: the demonstrations have no segmentation; record it')
        words = [self.config.alignment.background, *classes.words[1:]]
        ids = word_ids(words, self.tokenizer, self.manifest.prompt.lowercase)
        frequency = self._class_frequency(len(words))
        if classes.unknown and self.place.rank == 0:
            names = ', '.join(classes.unknown)
            print(f'alignment: no words for {names}; their patches are left out', flush=True)
        config = self.model.config
        return Aligner(ids, frequency, config.language.width, config.cameras)

    def _class_frequency(self, count: int) -> Tensor:
        """Count how often patches of the training frames show each class [count]; sums to 1."""
        rows = np.concatenate(self.data.training)
        random = np.random.default_rng(0)
        rows = random.choice(rows, min(len(rows), FREQUENCY_FRAMES), replace=False)
        found = torch.zeros(count)
        for part in np.array_split(np.sort(rows), -(-len(rows) // 64)):
            shown = torch.from_numpy(self.data.store.gather(part, instances=True).instances)
            labels = self._labels(shown)
            found += torch.bincount(labels[labels != NO_LABEL], minlength=count)
        return found / found.sum().clamp_min(1)

    def _figures(
        self, sums: dict[str, list[float]], steps: int, seconds: float
    ) -> dict[str, float]:
        """Means since the last log, and how fast it goes."""
        samples = steps * self._sampler.batch
        figures = {
            'step': float(self.step),
            'epoch': self.step * self._sampler.batch / self._sampler.epoch_frames,
            'seconds': self._seconds + time.perf_counter() - self._begun,
            'samples_per_second': samples / seconds,
            'eta_seconds': (self.config.steps - self.step) * seconds / steps,
            'lr': self._optimizers[0].param_groups[0]['lr'],
        }
        return figures | {name: float(np.mean(values)) for name, values in sums.items()}

    def _log(self, logs: Logs | None, figures: dict[str, float]) -> None:
        if logs is not None:
            logs.write(figures)

    def _due(self) -> bool:
        """Whether a checkpoint is due, by the clock of any process."""
        every = self.config.checkpoint_every
        late = time.perf_counter() - self._saved > 60 * every.minutes
        return (every.steps > 0 and self.step % every.steps == 0) or any_of_all(
            every.minutes > 0 and late, self.place
        )

    def _autocast(self) -> AbstractContextManager:
        return torch.autocast(self.place.device.type, torch.bfloat16, enabled=self.config.autocast)

    def _attention(self) -> AbstractContextManager:
        if self.config.attention == 'plain':
            return sdpa_kernel(SDPBackend.MATH)
        return nullcontext()

    def _provenance(self) -> dict[str, Any]:
        data = self.data
        return {
            'generator': f'lightvla_ros {__version__} models/train.py',
            'trained': True,
            'config': self.config.to_dict(),
            'seed': self.config.seed,
            'steps': self.step,
            'samples': self.step * self._sampler.batch,
            'seconds': round(self._seconds),
            'processes': self.place.world,
            'data': {
                'training_frames': [len(rows) for rows in data.training],
                'held_out_frames': len(data.held_out),
                'instructions': len(data.store.instructions),
            },
            'machine': json.loads(json.dumps(measured_with(torch.get_num_threads()))),
        }


def _prepare_blocks(model: torch.nn.Module, config: TrainConfig) -> None:
    """Recompute or compile each block of towers and decoder; names of weights stay."""
    for module in model.modules():
        if not isinstance(module, Block | LlamaBlock):
            continue
        if config.gradient_checkpointing:
            module.forward = _recomputing(module.forward)
        if config.compile:
            module.compile()


def _recomputing(forward: Any) -> Any:
    def run(*arguments: Any) -> Any:
        return recomputed(forward, *arguments, use_reentrant=False)

    return run


def _assign(target: Tensor, value: Tensor) -> None:
    """Copy a whole tensor into one that may be sharded."""
    if hasattr(target, 'full_tensor'):
        from torch.distributed.tensor import distribute_tensor

        value = distribute_tensor(value.to(target.device), target.device_mesh, target.placements)
    target.copy_(value)
