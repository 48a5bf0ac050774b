"""An engine that keeps every visual token, or other tokens than its pruner has chosen.

``encode`` returns all visual tokens, kept ones first, and ``act`` takes the given number of them.
If an engine's tensors are in the host's memory (ONNX Runtime on a CPU, OpenVINO), reordering the
tokens makes the exported graphs run unpruned or on other tokens. In PyTorch the model's own
ablation is used. On a GPU engine this is not possible, because its tokens stay on the GPU.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lightvla_ros.engine.base import Encoded, Engine, PromptIds
from lightvla_ros.errors import EngineError
from lightvla_ros.evaluate.episodes import Conditions
from lightvla_ros.sim.episode import EpisodeSpec

DROPPED = 0.1  # share of the kept tokens that `--ablation fewer` drops
Choice = Callable[[np.ndarray], np.ndarray]  # kept bool [Lv] -> another of that shape


class TokenChooser:
    """Chooses reproducibly which tokens are kept instead of the pruner's.

    Of the pruner's k tokens, counted over all cameras, it makes with ``--ablation``

    - ``random``: k tokens at random;
    - ``fixed``: the first k tokens of one fixed order of all patches;
    - ``more``: the k tokens and k others at random, or all if there are fewer;
    - ``fewer``: the k tokens without a random tenth, rounded; one is kept.

    ``more`` and ``fewer`` are the paper's table 4. All but ``fixed`` draw for every chunk, seeded
    by the episode and the chunk's number.
    """

    def __init__(self, conditions: Conditions) -> None:
        self._what = 'all' if conditions.pruning == 'off' else conditions.ablation
        self._seed = conditions.ablation_seed
        self._episode: list[int] = []
        self._chunk = 0

    def start_episode(self, spec: EpisodeSpec) -> None:
        """Seed the draws of an episode."""
        suite = zlib.crc32(spec.suite.encode())  # hash() differs from process to process
        self._episode = [suite, spec.task, spec.init_state, spec.seed]
        self._chunk = 0

    def __call__(self, kept: np.ndarray) -> np.ndarray:
        """Return what to keep instead, bool [Lv]."""
        if self._what == 'all':
            return np.ones_like(kept)
        draw = [self._seed]
        if self._what != 'fixed':
            draw += [*self._episode, self._chunk]
            self._chunk += 1
        order = np.random.default_rng(draw).permutation(len(kept))
        count = np.count_nonzero(kept)
        if self._what == 'more':
            chosen = kept.copy()
            chosen[order[~kept[order]][:count]] = True
        elif self._what == 'fewer':
            chosen = kept.copy()
            chosen[order[kept[order]][: min(round(DROPPED * count), count - 1)]] = False
        else:
            chosen = np.zeros_like(kept)
            chosen[order[:count]] = True
        return chosen


class ChosenTokens:
    """An engine that wraps another one, see the module.

    :param choose: Maps the pruner's kept tokens to the tokens that are kept instead.
    :param cameras: Number of cameras.
    """

    def __init__(self, engine: Engine, choose: Choice, cameras: int) -> None:
        self._engine, self._choose, self._cameras = engine, choose, cameras
        self.backend = engine.backend
        self.precision = engine.precision
        self.fingerprint = engine.fingerprint

    def encode(self, pixels: np.ndarray, prompt: PromptIds, proprio: np.ndarray | None) -> Encoded:
        """See :meth:`Engine.encode`; then replace the kept tokens.

        :raises EngineError: When the engine's tensors are not in the host's memory.
        """
        model = getattr(self._engine, 'model', None)
        if model is not None:
            return self._encode_torch(model, pixels, prompt, proprio)
        encoded = self._engine.encode(pixels, prompt, proprio)
        tensors = encoded.tensors
        if tensors is None:
            raise EngineError(
                f'{self.backend} keeps its visual tokens on the GPU, so they cannot be replaced; '
                'use --engine onnxruntime on the CPU, openvino or torch'
            )
        positions = tensors['positions'][0]
        kept = np.zeros(len(positions), dtype=bool)
        kept[positions[: sum(encoded.kept)]] = True
        chosen = self._choose(kept)
        order = np.concatenate([np.flatnonzero(chosen), np.flatnonzero(~chosen)])
        tensors['tokens'][0] = tensors['tokens'][0, np.argsort(positions)[order]]
        tensors['positions'][0] = order
        counts = chosen.reshape(self._cameras, -1).sum(1)
        tensors['kept'][...] = counts
        return replace(encoded, kept=tuple(counts.tolist()))

    def act(self, encoded: Encoded, bucket: int) -> np.ndarray:
        """See :meth:`Engine.act`."""
        return self._engine.act(encoded, bucket)

    def kept_patches(self, encoded: Encoded) -> np.ndarray:
        """See :meth:`Engine.kept_patches`."""
        return self._engine.kept_patches(encoded)

    def close(self) -> None:
        """Free the engine."""
        self._engine.close()

    def _encode_torch(
        self, model: object, pixels: np.ndarray, prompt: PromptIds, proprio: np.ndarray | None
    ) -> Encoded:
        import torch

        from lightvla_ros.vla.ablation import ablated

        def ablate(kept: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(np.stack([self._choose(row) for row in kept.numpy()]))

        with ablated(model, ablate):
            return self._engine.encode(pixels, prompt, proprio)
