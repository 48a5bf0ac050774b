"""A training run, from data to a policy folder."""

from __future__ import annotations

import json
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from lightvla_ros import __version__
from lightvla_ros.contract import MANIFEST_NAME
from lightvla_ros.errors import TrainError
from lightvla_ros.files import write_text
from lightvla_ros.machine import measured_with
from lightvla_ros.train.alignment import Aligner
from lightvla_ros.train.batches import Batches
from lightvla_ros.train.bounds import report_cut_off
from lightvla_ros.train.checkpoint import (
    CHECKPOINT,
    check_data,
    check_same,
    check_unused,
    load_checkpoint,
    save_checkpoint,
)
from lightvla_ros.train.config import TrainConfig
from lightvla_ros.train.config_file import from_dict
from lightvla_ros.train.data import Data, Sampler, load_data, step_seed
from lightvla_ros.train.logs import LOSSES, Logs
from lightvla_ros.train.lora import merge_adapters, without_adapters
from lightvla_ros.train.losses import Losses
from lightvla_ros.train.measurements import measure
from lightvla_ros.train.model_config import POLICY
from lightvla_ros.train.optim import (
    load_optimizers,
    make_optimizers,
    optimizers_state,
    rate_factor,
    set_rate,
)
from lightvla_ros.train.parallel import Process, any_of_all, assign, gathering, spread, whole
from lightvla_ros.train.preparation import choose_trained, prepare_blocks
from lightvla_ros.train.start import start
from lightvla_ros.train.token_teacher import TokenTeacher
from lightvla_ros.train.tower_features import TowerFeatures
from lightvla_ros.train.views import Viewer
from lightvla_ros.train.weights import RunningMean, between, write_observations, write_policy
from lightvla_ros.vla.config import noise_bound

CONFIG = 'config.yaml'
OBSERVATIONS = 'observations.npz'


class Run:
    """A run in its folder.

    :param data: Result of :func:`load_data`; None reads the data.
    :param resume: Continue from the folder's checkpoint, with bit-identical results.
    :raises TrainError: When the run cannot start.
    :raises ConfigError: When the configuration does not fit the model.
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        process: Process,
        *,
        resume: bool = False,
        data: Data | None = None,
    ) -> None:
        self.config, self.folder, self.process = config, Path(folder), process
        self._path = self.folder / CHECKPOINT
        state = self._check_folder(resume)
        if config.threads:
            torch.set_num_threads(config.threads)
        alignment = config.alignment
        if data is None:
            data = load_data(config.data, alignment.names, config.segmentation_used)
        self.data = data
        if state is not None:
            check_data(self._path, state, len(data.store), data.mappings)
        # only one process may write into the run's folder
        own = self.folder if process.rank == 0 else Path(tempfile.mkdtemp())
        begun = start(config, data.store, own)
        self.document, self.manifest, model = begun.document, begun.manifest, begun.model
        self.tokenizer = begun.tokenizer
        choose_trained(model, config)
        if process.rank == 0:
            store = data.store
            report_cut_off(store.chunks, store.proprio, self.manifest, store.robot.layout)
        viewer = Viewer(self.manifest.cameras, self.manifest.preprocessing, config.augment.colour)
        self.batches = Batches(data, viewer, self.manifest, self.tokenizer, config)
        if process.rank == 0 and not viewer.fits(data.store.image_shape[1:3]):
            print("every step turns or resizes images to the policy's form", flush=True)
        self.model = model
        teacher = TokenTeacher(model) if config.learn == 'tokens' else None
        losses = Losses(model, self._aligner(), alignment.weight, alignment.where, teacher)
        self.losses = losses.to(process.device)
        self._frozen: dict[str, Tensor] = {}
        if config.lora is None:
            self._frozen = {
                name: weight.detach()
                for name, weight in model.named_parameters()
                if not weight.requires_grad
            }
        if config.towers_frozen and not config.augment.any:
            self.batches.features = TowerFeatures(model, data.store, viewer, process.rank == 0)
        self.losses.train()  # a model that was loaded is in eval mode
        prepare_blocks(model, config)
        self._module = spread(self.losses, config.parallel, process)
        self._optimizers = make_optimizers(model, config.optimizer)
        self._mean = RunningMean(model, config.ema)
        self._start: dict[str, Tensor] = {}
        if config.interpolation < 1:
            self._start = {name: weight.clone() for name, weight in self._trained().items()}
        self._sampler = Sampler(
            data.training,
            data.weights,
            config.batch_size * config.accumulate * process.world,
            config.seed,
        )
        self.step, self._seconds = 0, 0.0
        self._begun = self._mark = self._saved = time.perf_counter()
        if state is not None:
            self._load(state)
        self._stopped = False

    def stop(self) -> None:
        """Make :meth:`train` write a checkpoint and return after the current step."""
        self._stopped = True

    def train(self) -> bool:
        """Train to the last step, with logs and checkpoints, and write the policy.

        :returns: Whether the last step was reached.
        :raises TrainError: When the loss is not finite.
        """
        config, logs = self.config, None
        if self.process.rank == 0:
            logs = Logs(self.folder, self._cameras, self.step)
        try:
            if self.step == 0:
                self._log(logs, {'step': 0.0, **self.evaluate()})
            sums: dict[str, list[float]] = {}
            self._begun = self._mark = self._saved = time.perf_counter()
            marked_step = self.step
            while self.step < config.steps and not any_of_all(self._stopped, self.process):
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
        if not (
            self.folder / POLICY / MANIFEST_NAME
        ).exists():  # an earlier call may have written it
            self.write_policy(self.folder / POLICY)
        if self.process.rank == 0:
            write_observations(self.folder / OBSERVATIONS, self.data)
        return True

    def train_step(self) -> dict[str, float]:
        """Change the weights once; return the step's losses.

        :raises TrainError: When the loss is not finite.
        """
        config = self.config
        set_rate(self._optimizers, rate_factor(config.optimizer, self.step, config.steps))
        figures = self.add_gradients()
        if not np.isfinite(figures['loss']):
            raise TrainError(
                f'step {self.step}: the loss is {figures["loss"]}; lower optimizer.lr or set '
                'optimizer.clip_norm, and continue from the last checkpoint'
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
        """Compute the gradients of the current step; return its losses."""
        config, step = self.config, self.step
        mode, alpha = self._phase(step)
        rows = self._sampler.rows(step).reshape(self.process.world, config.accumulate, -1)
        figures: dict[str, float] = {'alpha': alpha}
        for part in range(config.accumulate):
            # this seed determines all random numbers of this part, so a resumed run needs no
            # stored random state
            torch.manual_seed(step_seed(config.seed, step, self.process.rank, part))
            batch = self.batches.training(rows[self.process.rank, part]).to(self.process.device)
            last = part == config.accumulate - 1
            with gathering(self._module, last), self._attention():
                with self._autocast():
                    found = self._module(batch, alpha, mode)
                (found['loss'] / config.accumulate).backward()
            for name in LOSSES:
                if name in found:
                    value = float(found[name].detach().float().mean())
                    figures[name] = figures.get(name, 0.0) + value / config.accumulate
        return figures

    def evaluate(self) -> dict[str, float]:
        """Measure the running mean of the weights on held-out frames."""
        alone = self.config.parallel != 'fsdp2'
        if not len(self.data.held_out) or (alone and self.process.rank):
            return {}
        mode, device = self._phase(max(self.step - 1, 0))[0], self.process.device
        batches = ((batch.to(device), places) for batch, places in self.batches.held_out())
        with self._mean.in_place(), self._autocast(), self._attention():
            return measure(self.losses, batches, self._cameras, mode)

    def save(self) -> None:
        """Write the checkpoint."""
        now = time.perf_counter()
        self._seconds += now - self._begun
        self._begun = self._saved = now
        state = {
            'config': self.config.to_dict(),
            'step': self.step,
            'seconds': self._seconds,
            'world': self.process.world,
            'frames': len(self.data.store),
            'weights': self._trained(),
            'frozen': self._frozen,
            'mean': {name: whole(value) for name, value in self._mean.mean.items()},
            'start': self._start,
            'optimizers': optimizers_state(self.model, self._optimizers, self.config.parallel),
            'provenance': self._provenance(),
        }
        if self.process.rank == 0:
            save_checkpoint(self._path, state)

    def write_policy(self, folder: Path) -> None:
        """Write the policy folder."""
        mean = {name: whole(value) for name, value in self._mean.mean.items()}
        trained = mean or self._trained()
        if self._start:
            trained = between(self._start, trained, self.config.interpolation)
        weights = trained | self._frozen
        if self.config.lora is not None:
            frozen = {name: whole(value) for name, value in self.model.state_dict().items()}
            lora = self.config.lora
            weights = merge_adapters(without_adapters(frozen), trained, lora.alpha / lora.rank)
        if self.process.rank == 0:
            write_policy(folder, weights, self.document, self.tokenizer, self._provenance())

    @property
    def _cameras(self) -> tuple[str, ...]:
        return tuple(camera.name for camera in self.manifest.cameras)

    def _check_folder(self, resume: bool) -> dict[str, Any] | None:
        """Return the checkpoint to resume from, or begin a new folder."""
        if resume:
            state = load_checkpoint(self._path)
            # a key that is newer than the checkpoint had what is its default now
            then = from_dict(state['config']).to_dict()
            check_same(self._path, then, self.config.to_dict())
            if state['world'] != self.process.world:
                raise TrainError(
                    f'{self._path}: was written by {state["world"]} processes; start as many'
                )
            return state
        if self.process.rank == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            check_unused(self.folder)
            document = yaml.safe_dump(self.config.to_dict(), sort_keys=False)
            write_text(self.folder / CONFIG, document)
        return None

    def _load(self, state: dict[str, Any]) -> None:
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
                assign(value, source[name])
        load_optimizers(self.model, self._optimizers, state['optimizers'], self.config.parallel)

    def _weights(self) -> dict[str, Tensor]:
        return {
            name: weight.detach()
            for name, weight in self.model.named_parameters()
            if weight.requires_grad
        }

    def _trained(self) -> dict[str, Tensor]:
        return {name: whole(weight) for name, weight in self._weights().items()}

    def _phase(self, step: int) -> tuple[str, float]:
        """Return the mode of the losses, and the noise bound alpha."""
        config, first = self.config, self.config.alignment.only_steps
        if step < first:
            return 'alignment', 0.0
        if config.learn == 'tokens':
            return 'tokens', 0.0
        if self.model.config.pruning.method == 'off':
            return 'both', 0.0
        bound = noise_bound(config.noise.schedule, step - first, config.steps - first)
        return 'both', config.noise.scale * bound

    def _aligner(self) -> Aligner | None:
        if not self.config.alignment.used:
            return None
        ids, config = self.batches.class_ids(), self.model.config
        unknown = self.data.store.classes.unknown
        if unknown and self.process.rank == 0:
            names = ', '.join(unknown)
            print(f'alignment: no words for {names}; their patches are left out', flush=True)
        frequency = self.batches.class_frequency()
        return Aligner(ids, frequency, config.language.width, config.cameras)

    def _figures(
        self, sums: dict[str, list[float]], steps: int, seconds: float
    ) -> dict[str, float]:
        """Return means since the last log, and the speed of training."""
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
        """Return whether a checkpoint is due, by the steps or by the clock of any process."""
        every = self.config.checkpoint_every
        late = time.perf_counter() - self._saved > 60 * every.minutes
        return (every.steps > 0 and self.step % every.steps == 0) or any_of_all(
            every.minutes > 0 and late, self.process
        )

    def _autocast(self) -> AbstractContextManager:
        return torch.autocast(
            self.process.device.type, torch.bfloat16, enabled=self.config.autocast
        )

    def _attention(self) -> AbstractContextManager:
        if self.config.attention == 'plain':
            return sdpa_kernel(SDPBackend.MATH)
        return nullcontext()

    def _provenance(self) -> dict[str, Any]:
        data = self.data
        return {
            'generator': f'lightvla_ros {__version__} train',
            'trained': True,
            'config': self.config.to_dict(),
            'seed': self.config.seed,
            'steps': self.step,
            'samples': self.step * self._sampler.batch,
            'seconds': round(self._seconds),
            'processes': self.process.world,
            'data': {
                'training_frames': [len(rows) for rows in data.training],
                'held_out_frames': len(data.held_out),
                'instructions': len(data.store.instructions),
                **({'mappings': data.mappings} if data.mappings else {}),
            },
            'machine': json.loads(json.dumps(measured_with(torch.get_num_threads()))),
        }
