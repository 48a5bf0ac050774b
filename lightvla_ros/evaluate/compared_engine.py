"""The PyTorch engine with a pruning method of others, as `--prune fastv-stop:16` asks."""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING

import numpy as np

from lightvla_ros.engine.base import Encoded, PromptIds
from lightvla_ros.errors import ArgumentError
from lightvla_ros.sim.episode import EpisodeSpec

if TYPE_CHECKING:
    from lightvla_ros.engine.torch import TorchEngine


class ComparedEngine:
    """Runs the model of a PyTorch engine with a method of ``vla/compared``.

    Layers that see all patches belong to the method, so ``encode`` computes the whole chunk, and
    ``act`` returns it.

    :param prune: ``NAME:K``, see :func:`parse_prune`.
    :param seed: Seed of the methods that draw.
    :raises ConfigError: When the method or the number is impossible.
    """

    def __init__(self, engine: TorchEngine, prune: str, seed: int) -> None:
        from lightvla_ros.vla.compared.pruned_model import ComparedModel

        self._engine, self._seed = engine, seed
        self._compared = ComparedModel(engine.model, *parse_prune(prune))
        self._episode: tuple[int, ...] = (seed,)
        self._prompt = b''
        self.backend = engine.backend
        self.precision = engine.precision
        self.fingerprint = engine.fingerprint

    def start_episode(self, spec: EpisodeSpec) -> None:
        """Forget the earlier chunks, and seed the draws of an episode."""
        suite = zlib.crc32(spec.suite.encode())
        self._episode = (self._seed, suite, spec.task, spec.init_state, spec.seed)
        self._compared.start_episode(*self._episode)

    def encode(self, pixels: np.ndarray, prompt: PromptIds, proprio: np.ndarray | None) -> Encoded:
        """See :meth:`Engine.encode`. Another instruction forgets the earlier chunks."""
        import torch

        if self._prompt != prompt.ids.tobytes():
            self._prompt = prompt.ids.tobytes()
            self._compared.start_episode(*self._episode)
        with torch.inference_mode():
            actions, picks = self._compared(*self._engine.inputs(pixels, prompt, proprio))
        again = not len(picks)
        config = self._engine.model.config
        picks = picks[picks >= 0]  # some tokens of SparseVLM are no patch
        camera = picks.numpy() // config.patches_per_camera
        kept = tuple(np.bincount(camera, minlength=config.cameras).tolist())
        return Encoded(kept, (actions[0].float().numpy(), picks.numpy()), again=again)

    def act(self, encoded: Encoded, bucket: int) -> np.ndarray:
        """See :meth:`Engine.act`."""
        return encoded.handle[0]

    def kept_patches(self, encoded: Encoded) -> np.ndarray:
        """See :meth:`Engine.kept_patches`."""
        return encoded.handle[1]

    def close(self) -> None:
        """Free the engine."""
        self._engine.close()


def parse_prune(text: str) -> tuple[str, int]:
    """Split ``fastv-stop:16`` -> ('fastv-stop', 16).

    :raises ArgumentError: When the text has another form.
    """
    if not re.fullmatch(r'[a-z-]+:\d{1,6}', text, re.ASCII):
        raise ArgumentError(f'--prune {text}: give NAME:K, such as fastv-stop:16')
    name, k = text.split(':')
    return name, int(k)
