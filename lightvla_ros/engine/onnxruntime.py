"""The engine on ONNX Runtime: any machine with a CPU, and GPUs where its providers are installed.

The two graphs (all but ``bucket`` static; float is float32)::

    encode  pixels float [cameras, 3 * towers, height, width], prompt_ids int64 [1, P],
            prompt_mask bool [1, P], proprio float [1, S] (absent without proprio)
         -> tokens float [1, Lv, D]   kept visual tokens first, in their original order
            positions int64 [1, Lv]   index of each token's patch, 0 .. Lv - 1
            kept int32 [cameras]      kept tokens per camera; the sum is K
            context float [1, C, D]   proprio and prompt, embedded
    act     tokens float [1, bucket, D], positions int64 [1, bucket], kept int32 [cameras],
            context float [1, C, D], prompt_mask bool [1, P]
         -> actions float [chunk_length, 7], normalised

Each graph's metadata says under ``precision`` in which numbers it computes (``fp32``).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort

from lightvla_ros.contract import ACTION_SIZE, Manifest
from lightvla_ros.engine.base import Encoded, EngineError, Prompt

ENCODE_OUTPUTS = ('tokens', 'positions', 'kept', 'context')


class OnnxRuntimeEngine:
    """Two ONNX Runtime sessions.

    :param provider: Execution provider by ONNX Runtime's name. It must be the one in use: by
        itself ONNX Runtime falls back to the CPU with a line on stderr.
    :param threads: Threads per graph. They do not spin between calls, for the robot's sake.
    """

    def __init__(
        self,
        policy_dir: Path,
        manifest: Manifest,
        provider: str = 'CPUExecutionProvider',
        threads: int = 1,
    ) -> None:
        if provider not in ort.get_available_providers():
            raise EngineError(
                f'onnxruntime {ort.__version__} has no {provider} here, only '
                f'{", ".join(ort.get_available_providers())}; install the build that has it '
                '(onnxruntime-gpu for CUDA and TensorRT) or ask for another provider'
            )
        self.backend = f'onnxruntime-{provider.removesuffix("ExecutionProvider").lower()}'
        self._manifest = manifest
        self._encode = _session(Path(policy_dir) / manifest.graphs.encode, provider, threads)
        self._act = _session(Path(policy_dir) / manifest.graphs.act, provider, threads)
        self._check_signatures()
        self.precision = self._precision()

    def encode(self, pixels: np.ndarray, prompt: Prompt, proprio: np.ndarray | None) -> Encoded:
        """See :meth:`Engine.encode`."""
        feed = {'pixels': pixels, 'prompt_ids': prompt.ids, 'prompt_mask': prompt.mask}
        if proprio is not None:
            feed['proprio'] = proprio
        outputs = _run(self._encode, ENCODE_OUTPUTS, feed)
        handle = dict(zip(ENCODE_OUTPUTS, outputs, strict=True))
        handle['prompt_mask'] = prompt.mask
        return Encoded(kept=tuple(handle['kept'].tolist()), handle=handle)

    def act(self, encoded: Encoded, bucket: int) -> np.ndarray:
        """See :meth:`Engine.act`."""
        feed = dict(encoded.handle)
        feed['tokens'] = feed['tokens'][:, :bucket]
        feed['positions'] = feed['positions'][:, :bucket]
        return _run(self._act, ('actions',), feed)[0]

    def kept_patches(self, encoded: Encoded) -> np.ndarray:
        """See :meth:`Engine.kept_patches`."""
        return encoded.handle['positions'][0, : sum(encoded.kept)]

    def close(self) -> None:
        """Free both sessions."""
        del self._encode, self._act

    def _precision(self) -> str:
        """Read in which numbers the graphs compute, from their metadata."""
        graphs = self._manifest.graphs
        said = {
            name: session.get_modelmeta().custom_metadata_map.get('precision')
            for name, session in ((graphs.encode, self._encode), (graphs.act, self._act))
        }
        for name, precision in said.items():
            if not precision:
                raise EngineError(f'{name}: its metadata has no precision; export the policy again')
        return '+'.join(dict.fromkeys(said.values()))

    def _check_signatures(self) -> None:
        """Refuse graphs whose inputs or outputs are not the manifest's."""
        manifest = self._manifest
        cameras = len(manifest.cameras)
        height, width = manifest.cameras[0].size
        channels = 3 * len(manifest.preprocessing.normalisation)
        prompt = [1, manifest.prompt.length]
        tokens = manifest.tokens.buckets[-1]
        any_size = None
        encode = {
            'pixels': ('tensor(float)', [cameras, channels, height, width]),
            'prompt_ids': ('tensor(int64)', prompt),
            'prompt_mask': ('tensor(bool)', prompt),
            'tokens': ('tensor(float)', [1, tokens, any_size]),
            'positions': ('tensor(int64)', [1, tokens]),
            'kept': ('tensor(int32)', [cameras]),
            'context': ('tensor(float)', [1, any_size, any_size]),
        }
        if manifest.proprio is not None:
            encode['proprio'] = ('tensor(float)', [1, manifest.proprio.size])
        act = {
            'tokens': ('tensor(float)', [1, any_size, any_size]),
            'positions': ('tensor(int64)', [1, any_size]),
            'kept': ('tensor(int32)', [cameras]),
            'context': ('tensor(float)', [1, any_size, any_size]),
            'prompt_mask': ('tensor(bool)', prompt),
            'actions': ('tensor(float)', [manifest.action.chunk_length, ACTION_SIZE]),
        }
        _check_signature(manifest.graphs.encode, self._encode, encode)
        _check_signature(manifest.graphs.act, self._act, act)


def _session(path: Path, provider: str, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads take a core from the robot, and slow down 3x on a contended one
    # (reference/tensorrt.md section 3).
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:  # onnxruntime's exceptions have no common base but this
        raise EngineError(f'{path}: onnxruntime cannot load it: {_line(error)}') from None
    used = session.get_providers()[0]
    if used != provider:
        raise EngineError(
            f'{path}: {provider} was asked for, onnxruntime runs it on {used}; install the '
            f'libraries that {provider} needs (its error is on stderr) or ask for {used}'
        )
    return session


def _run(session: ort.InferenceSession, outputs: tuple[str, ...], feed: dict) -> list[np.ndarray]:
    try:
        return session.run(outputs, feed)
    except Exception as error:
        raise EngineError(f'onnxruntime failed: {_line(error)}') from None


def _check_signature(name: str, session: ort.InferenceSession, wanted: dict) -> None:
    found = {port.name: port for port in (*session.get_inputs(), *session.get_outputs())}
    if found.keys() != wanted.keys():
        raise EngineError(
            f'{name}: has inputs and outputs {sorted(found)}, the manifest needs {sorted(wanted)}'
        )
    for port, (kind, shape) in wanted.items():
        same = len(found[port].shape) == len(shape) and all(
            size in (None, actual) for size, actual in zip(shape, found[port].shape, strict=True)
        )
        if found[port].type != kind or not same:
            raise EngineError(
                f'{name}: {port} is {found[port].type} {found[port].shape}, the manifest needs '
                f'{kind} {shape}'
            )


def _line(error: Exception) -> str:
    return ' '.join(str(error).split())[:300]
