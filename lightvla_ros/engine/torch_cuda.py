"""PyTorch on an NVIDIA GPU: CUDA graphs of the model, from the weights of a policy folder.

It needs PyTorch with CUDA (2.11 to 2.13) and no exported graph. ``static_model.py`` runs the model;
this module checks the GPU, loads the weights and identifies what runs.

Unverified: no GPU was available. Everything except the capture is tested on a CPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightvla_ros.contract import Manifest, fingerprint
from lightvla_ros.engine.base import Encoded, PromptIds
from lightvla_ros.engine.static_model import StaticModel
from lightvla_ros.errors import ContractError, EngineError
from lightvla_ros.vla.config import VLAConfig
from lightvla_ros.vla.weights import NUMBERS, config_of, load_model, used_shapes

BACKEND = 'torch-cuda'
PRECISIONS = ('fp8', 'bf16', 'fp16', 'fp32')  # from the fastest to the slowest
FP8_CAPABILITY = (8, 9)  # Ada, Hopper and later
WORKSPACE = 2**29  # bytes besides the weights, for the tensors between layers and for libraries
WORKSPACE_SHARE = 0.05


class TorchCudaEngine:
    """Both halves of the model as CUDA graphs; ready when constructed.

    :param threads: Threads of PyTorch on the host.
    :param precision: ``fp32``, ``fp16``, ``bf16`` or ``fp8``; None: the fastest that has passed
        ``lightvla verify`` here.
    :param compiled: Whether blocks are compiled (:class:`StaticModel`).
    :param device: ``cuda``; tests use ``cpu``, which runs the same without graphs.
    :raises ContractError: When the folder holds no weights.
    :raises EngineError: When there is no GPU, its memory is too small, it lacks the precision, or
        no precision was verified and none is given.
    """

    backend = BACKEND

    def __init__(
        self,
        policy_dir: Path,
        manifest: Manifest,
        threads: int = 1,
        precision: str | None = None,
        compiled: bool = True,
        device: str = 'cuda',
    ) -> None:
        if manifest.model is None:
            raise ContractError(
                f'{policy_dir}: holds no weights, which {BACKEND} needs; export it again without '
                '--no-weights'
            )
        facts = gpu_facts(device)
        if precision is None:
            precision = _verified_precision(policy_dir, manifest, facts, compiled)
        _check_precision(policy_dir, manifest, precision, facts)
        self.precision = precision
        self.fingerprint = _fingerprint(manifest, facts, precision, compiled)
        torch.set_num_threads(threads)
        # TF32 has 10 bits of mantissa, with which fp32 would not be fp32
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        stored = load_model(policy_dir)
        number = sixteen_bits(stored) if precision == 'fp8' else NUMBERS[precision]
        if device == 'cuda':
            check_memory(config_of(manifest), precision)
        self._model = StaticModel(
            stored,
            manifest.prompt.length - 1,
            manifest.tokens.buckets,
            device,
            number,
            largest=manifest.fp8.largest if precision == 'fp8' else None,
            compiled=compiled,
        )
        self._prompt: PromptIds | None = None
        self._runs = 0

    def encode(self, pixels: np.ndarray, prompt: PromptIds, proprio: np.ndarray | None) -> Encoded:
        """See :meth:`Engine.encode`. It invalidates earlier results."""
        model = self._model
        self._runs += 1
        model.pixels.write(pixels)
        if model.proprio is not None:
            model.proprio.write(proprio)
        if prompt is not self._prompt:
            self._prompt = None  # so that the next upload is not skipped if this one fails
            model.set_prompt(prompt.ids, prompt.mask)
            self._prompt = prompt
        model.encode()
        return Encoded(kept=tuple(model.kept.array.tolist()), handle=self._runs)

    def act(self, encoded: Encoded, bucket: int) -> np.ndarray:
        """See :meth:`Engine.act`."""
        self._check_latest(encoded)
        self._model.act(bucket)
        return self._model.actions.array.copy()

    def kept_patches(self, encoded: Encoded) -> np.ndarray:
        """See :meth:`Engine.kept_patches`."""
        self._check_latest(encoded)
        return self._model.positions.array[0, : sum(encoded.kept)].copy()

    def close(self) -> None:
        """Free the memory of the GPU."""
        self._model.close()

    def _check_latest(self, encoded: Encoded) -> None:
        """Refuse an observation whose tokens were overwritten."""
        if encoded.handle != self._runs:
            raise EngineError(
                'the tokens of this observation were overwritten by a later encode; call act '
                'before the next encode'
            )


def has_gpu() -> bool:
    """Return whether PyTorch can use a GPU of NVIDIA here."""
    return torch.cuda.is_available()


def gpu_facts(device: str = 'cuda') -> dict[str, Any]:
    """Return the GPU and the versions that results depend on.

    :raises EngineError: When PyTorch can use no GPU here.
    """
    facts: dict[str, Any] = {'torch': torch.__version__, 'cuda': torch.version.cuda}
    if device != 'cuda':
        return facts | {'gpu': device}
    if torch.version.cuda is None:
        raise EngineError(
            f'PyTorch {torch.__version__} is built without CUDA; install one with CUDA (2.11 to '
            '2.13), or use another engine'
        )
    if not has_gpu():
        raise EngineError(
            'PyTorch finds no GPU of NVIDIA here; check nvidia-smi, or use another engine'
        )
    capability = torch.cuda.get_device_capability()
    return facts | {'gpu': torch.cuda.get_device_name(), 'compute_capability': list(capability)}


def weight_bytes(config: VLAConfig, precision: str) -> int:
    """Return the size of the weights in the memory of the GPU [bytes].

    The table of embeddings stays on the host.
    """
    total = 0
    for name, shape in used_shapes(config).items():
        if 'embed_tokens' in name:
            continue
        product = name.startswith('language_model.model.layers') and name.endswith('_proj.weight')
        size = 1 if precision == 'fp8' and product else 4 if precision == 'fp32' else 2
        total += size * int(np.prod(shape, dtype=np.int64))
    return total


def check_memory(config: VLAConfig, precision: str) -> None:
    """Refuse a model that does not fit, before it is loaded.

    :raises EngineError: With the figures.
    """
    weights = weight_bytes(config, precision)
    space = WORKSPACE + int(WORKSPACE_SHARE * weights)
    free, total = torch.cuda.mem_get_info()
    if weights + space > free:
        raise EngineError(
            f'this policy in {precision} needs {(weights + space) / 2**30:.1f} GiB '
            f'({weights / 2**30:.1f} of weights); {torch.cuda.get_device_name()} has '
            f'{free / 2**30:.1f} of {total / 2**30:.1f} GiB free; use a smaller precision, end '
            'other programs on this GPU, or use a larger GPU'
        )


def sixteen_bits(model: torch.nn.Module) -> torch.dtype:
    """Return the 16-bit type beside fp8: that of the weights, or fp16 for weights in fp32.

    Small policies lose kept tokens in bf16 (measured on an H200: overlap 0.93 for the bundled one).
    """
    first: Tensor = next(model.parameters())
    return torch.bfloat16 if first.dtype == torch.bfloat16 else torch.float16


def _fingerprint(manifest: Manifest, facts: dict[str, Any], precision: str, compiled: bool) -> str:
    document = {
        'engine': BACKEND,
        **facts,
        'precision': precision,
        'compiled': compiled,
        'buckets': list(manifest.tokens.buckets),
        'weights': {name: manifest.files[name] for name in manifest.model.weights},
    }
    if precision == 'fp8':
        document['fp8'] = [list(each) for each in manifest.fp8.largest]
    return fingerprint(document)


def _verified_precision(
    policy_dir: Path, manifest: Manifest, facts: dict[str, Any], compiled: bool
) -> str:
    passed = {each.fingerprint for each in manifest.verified if each.passed}
    for precision in PRECISIONS:
        if precision == 'fp8' and manifest.fp8 is None:
            continue
        if _fingerprint(manifest, facts, precision, compiled) in passed:
            return precision
    raise EngineError(
        f'{policy_dir}: no precision of {BACKEND} was verified on this GPU; run `lightvla verify '
        f'{policy_dir} --engine {BACKEND}` and read its result'
    )


def _check_precision(
    policy_dir: Path, manifest: Manifest, precision: str, facts: dict[str, Any]
) -> None:
    if precision not in PRECISIONS:
        raise EngineError(
            f'{BACKEND} has no precision {precision!r}; use one of {", ".join(PRECISIONS)}'
        )
    if precision != 'fp8':
        return
    if manifest.fp8 is None:
        raise EngineError(
            f'{policy_dir}: fp8 needs measured activations; run `lightvla calibrate {policy_dir}`'
        )
    capability = tuple(facts.get('compute_capability', FP8_CAPABILITY))
    if capability < FP8_CAPABILITY:
        raise EngineError(
            f'{facts["gpu"]} has no fp8 (compute capability {capability[0]}.{capability[1]}; it '
            f'needs {FP8_CAPABILITY[0]}.{FP8_CAPABILITY[1]}); use bf16 or fp16'
        )
