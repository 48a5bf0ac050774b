"""The PyTorch model as an engine: the reference of ``lightvla verify``, and training's evaluation.

It runs the trained model on the kept tokens, without padding to a bucket and without an exported
graph. It needs the extra ``train``; a robot does not.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lightvla_ros.contract import Manifest, fingerprint
from lightvla_ros.engine.base import Encoded, PromptIds
from lightvla_ros.vla.model import Context
from lightvla_ros.vla.weights import NUMBERS, load_model


class TorchEngine:
    """The engine on eager PyTorch on the CPU.

    :param precision: Precision to compute in. In fp32 the weights stay in memory as stored, and
        each layer's weights are converted while it runs: a 7B in bf16 takes 15 GB, not 30.
    :raises ContractError: When the folder holds no weights.
    """

    backend = 'torch-cpu'

    def __init__(
        self, policy_dir: Path, manifest: Manifest, threads: int = 1, precision: str = 'fp32'
    ) -> None:
        torch.set_num_threads(threads)
        self.precision = precision
        if precision == 'fp32':
            self.model = load_model(policy_dir)
            _compute_in_fp32(self.model)
        else:
            self.model = load_model(policy_dir, NUMBERS[precision])
        self.fingerprint = fingerprint(
            {
                'engine': 'torch',
                'version': torch.__version__,
                'precision': precision,
                'weights': {name: manifest.files[name] for name in manifest.model.weights},
            }
        )

    @torch.inference_mode()
    def encode(self, pixels: np.ndarray, prompt: PromptIds, proprio: np.ndarray | None) -> Encoded:
        """See :meth:`Engine.encode`."""
        model = self.model
        encoded = model.encode(*self.inputs(pixels, prompt, proprio))
        cameras = model.config.cameras
        kept = [model.config.patches_per_camera] * cameras
        if encoded.selection is not None:
            kept = encoded.selection.counts(cameras)[0].tolist()
        return Encoded(tuple(kept), encoded)

    @torch.inference_mode()
    def inputs(
        self, pixels: np.ndarray, prompt: PromptIds, proprio: np.ndarray | None
    ) -> tuple[Tensor, Context]:
        """Turn the arguments of :meth:`encode` into those of :meth:`LightVLA.encode`."""
        model, number = self.model, NUMBERS[self.precision]
        ids, mask = torch.from_numpy(prompt.ids), torch.from_numpy(prompt.mask)
        state = None if proprio is None else torch.from_numpy(proprio).to(number)
        words = model.language_model.model.embed_tokens(ids[:, 1:])
        context = model.embed_context(words, mask[:, :-1], state, model.embed_ends())
        return torch.from_numpy(pixels)[None].to(number), context

    @torch.inference_mode()
    def act(self, encoded: Encoded, bucket: int) -> np.ndarray:
        """See :meth:`Engine.act`. A bucket smaller than K takes the first tokens."""
        handle = encoded.handle
        handle = replace(handle, tokens=handle.tokens[:, :bucket], picks=handle.picks[:, :bucket])
        return self.model.decode(handle)[0].float().numpy()

    def kept_patches(self, encoded: Encoded) -> np.ndarray:
        """See :meth:`Engine.kept_patches`."""
        return encoded.handle.picks[0].numpy()

    def close(self) -> None:
        """Free the model."""
        del self.model


def _compute_in_fp32(model: nn.Module) -> None:
    """Make every module convert its weights before it runs, and restore them afterwards."""

    def widen(module: nn.Module, _: object) -> None:
        module.stored = {name: p.data for name, p in module.named_parameters(recurse=False)}
        for parameter in module.parameters(recurse=False):
            parameter.data = parameter.data.float()

    def restore(module: nn.Module, *_: object) -> None:
        for name, parameter in module.named_parameters(recurse=False):
            parameter.data = module.stored[name]
        del module.stored

    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if any(each.dtype != torch.float32 for each in own):
            module.register_forward_pre_hook(widen)
            module.register_forward_hook(restore)
