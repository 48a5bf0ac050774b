"""The engine on ONNX Runtime: for any CPU, and for GPUs if their providers are installed.

``signature.py`` describes the two graphs.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
from pathlib import Path

import numpy as np
import onnxruntime as ort

from lightvla_ros.contract import Manifest, fingerprint
from lightvla_ros.engine.base import Encoded, PromptIds
from lightvla_ros.engine.embedding import PromptWords
from lightvla_ros.engine.signature import ANY, Ports, check_ports, policy_ports
from lightvla_ros.errors import EngineError, one_line

TYPES = {
    'tensor(float)': 'float32',
    'tensor(float16)': 'float16',
    'tensor(int64)': 'int64',
    'tensor(int32)': 'int32',
    'tensor(bool)': 'bool',
}
# The library of each provider, which needs CUDA's and TensorRT's own libraries
LIBRARIES = {
    'CUDAExecutionProvider': 'libonnxruntime_providers_cuda.so',
    'TensorrtExecutionProvider': 'libonnxruntime_providers_tensorrt.so',
}
MISSING = 'cannot open shared object file'  # message of the dynamic linker
DEVICES = {'CUDAExecutionProvider': 'cuda', 'TensorrtExecutionProvider': 'cuda'}  # others: CPU


class OnnxRuntimeEngine:
    """Two ONNX Runtime sessions on buffers that are allocated once.

    The tensors between ``encode`` and ``act`` stay on the provider's device until the next
    ``encode``: a GPU sends only the kept counts and the actions to the host.

    :param provider: Execution provider by ONNX Runtime's name. It is an error if another one is
        used: ONNX Runtime itself would fall back to the CPU with only a line on stderr.
    :param threads: Threads per graph. They do not spin between calls, to leave cores for the robot.
    """

    def __init__(
        self,
        policy_dir: Path,
        manifest: Manifest,
        provider: str = 'CPUExecutionProvider',
        threads: int = 1,
    ) -> None:
        check_provider(provider)
        if manifest.graphs.precision == 'bf16':
            raise EngineError(
                f'{policy_dir}: its graphs are in bf16, which only TensorRT runs; for ONNX Runtime '
                'export in fp32 or fp16'
            )
        self.backend = f'onnxruntime-{provider.removesuffix("ExecutionProvider").lower()}'
        graphs = manifest.graphs
        options = provider_options(provider, graphs.precision)
        self._encode = _session(Path(policy_dir) / graphs.encode, provider, options, threads)
        self._act = _session(Path(policy_dir) / graphs.act, provider, options, threads)
        self.precision = graphs.precision
        self._prompt_words = PromptWords(policy_dir, manifest)
        wanted = policy_ports(manifest, self.precision, self._prompt_words.width)
        check_ports(graphs.encode, _ports(self._encode), wanted[0])
        check_ports(graphs.act, _ports(self._act), wanted[1])
        facts = {
            'engine': 'onnxruntime',
            'version': ort.__version__,
            'provider': provider,
            'graphs': manifest.graph_hashes,
        }
        self.fingerprint = fingerprint(facts | ({'options': options} if options else {}))
        self._prompt: PromptIds | None = None
        device = DEVICES.get(provider, 'cpu')
        encode, act = wanted
        # Pixels are bound where they are, because copying so much data takes time.
        self._buffers = {
            name: OrtBuffer(name, *port, device)
            for name, port in encode.items()
            if name != 'pixels'
        }
        self._tensors = None
        if device == 'cpu':
            self._tensors = {name: each.array for name, each in self._buffers.items()}
        self._pixels_shape = encode['pixels'][1]
        self._actions = OrtBuffer('actions', *act['actions'], 'cpu')
        self._encode_binding = self._encode.io_binding()
        outputs = {port.name for port in self._encode.get_outputs()}
        for name, buffer in self._buffers.items():
            if name in outputs:
                self._encode_binding.bind_ortvalue_output(name, buffer.value)
            else:
                self._encode_binding.bind_ortvalue_input(name, buffer.value)
        self._act_bindings: dict[int, ort.IOBinding] = {}
        for bucket in manifest.tokens.buckets:
            self._bind_act(bucket)

    def encode(self, pixels: np.ndarray, prompt: PromptIds, proprio: np.ndarray | None) -> Encoded:
        """See :meth:`Engine.encode`."""
        if prompt is not self._prompt:  # once per instruction
            words, mask = self._prompt_words(prompt)
            self._buffers['words'].write(words)
            self._buffers['word_mask'].write(mask)
            self._prompt = prompt
        if proprio is not None:
            self._buffers['proprio'].write(proprio)
        check_shape('pixels', pixels, self._pixels_shape)
        pixels = np.ascontiguousarray(pixels)
        self._encode_binding.bind_cpu_input('pixels', pixels)
        _run(self._encode, self._encode_binding)
        kept = tuple(self._buffers['kept'].read().tolist())
        return Encoded(kept, tensors=self._tensors)

    def act(self, encoded: Encoded, bucket: int) -> np.ndarray:
        """See :meth:`Engine.act`."""
        _run(self._act, self._act_bindings.get(bucket) or self._bind_act(bucket))
        return self._actions.read().copy()

    def kept_patches(self, encoded: Encoded) -> np.ndarray:
        """See :meth:`Engine.kept_patches`."""
        return self._buffers['positions'].read()[0, : sum(encoded.kept)].copy()

    def close(self) -> None:
        """Free both sessions."""
        self._act_bindings.clear()
        del self._encode_binding, self._encode, self._act

    def _bind_act(self, bucket: int) -> ort.IOBinding:
        """Bind the outputs of ``encode`` in place, cutting tokens and positions to ``bucket``."""
        binding = self._act.io_binding()
        for port in self._act.get_inputs():
            buffer = self._buffers[port.name]
            shape = list(buffer.shape)
            if port.name in ('tokens', 'positions'):
                shape[1] = bucket
            device, where = buffer.value.device_name(), buffer.value.data_ptr()
            binding.bind_input(port.name, device, 0, buffer.dtype, shape, where)
        binding.bind_ortvalue_output('actions', self._actions.value)
        self._act_bindings[bucket] = binding
        return binding


def check_provider(provider: str) -> None:
    """Check that ONNX Runtime has a provider, and that a GPU's has the libraries that it needs.

    Libraries of pip's nvidia packages are also found. Without this check, ONNX Runtime would
    print a page on stderr and continue on the CPU.

    :raises EngineError: Naming what is missing.
    """
    if provider not in ort.get_available_providers():
        raise EngineError(
            f'onnxruntime {ort.__version__} has no {provider} here, only '
            f'{", ".join(ort.get_available_providers())}; install the build that has it '
            '(onnxruntime-gpu for CUDA and TensorRT) or choose another provider'
        )
    name = LIBRARIES.get(provider)
    if name is None:
        return
    if hasattr(ort, 'preload_dlls'):  # since 1.21; it prints the libraries that it does not find
        with contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls()
    try:
        ctypes.CDLL(str(Path(ort.__file__).parent / 'capi' / name), mode=os.RTLD_LAZY)
    except OSError as error:
        if MISSING in str(error):  # ONNX Runtime itself reports any other fault
            missing = str(error).partition(':')[0]
            raise EngineError(
                f'{provider} needs {missing}, which is not found; install it (CUDA comes with pip '
                'install "onnxruntime-gpu[cuda,cudnn]") or choose CPUExecutionProvider'
            ) from None


def provider_options(provider: str, precision: str) -> dict[str, str]:
    """Return the options of an execution provider for graphs in a precision.

    By default CUDA would compute fp32 in TF32, with 10 bits of mantissa. Measured on the bundled
    policy on 2026-11-26 with onnxruntime-gpu 1.31.1: the error of a step was 0.098 mm with TF32 and
    0.00011 mm without.
    """
    if provider == 'CUDAExecutionProvider' and precision == 'fp32':
        return {'use_tf32': '0'}
    return {}


def _session(
    path: Path, provider: str, chosen: dict[str, str], threads: int
) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads take a core from the robot, and are 3 times slower on a contended core
    # (``docs/explanation/engines.md``).
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(str(path), options, providers=[(provider, chosen)])
    except Exception as error:  # onnxruntime's exceptions have no other common base
        raise EngineError(f'{path}: onnxruntime cannot load it: {one_line(error)}') from None
    used = session.get_providers()[0]
    if used != provider:
        raise EngineError(
            f'{path}: onnxruntime runs it on {used} instead of {provider}; install the '
            f'libraries that {provider} needs (its error is on stderr) or choose {used}'
        )
    return session


def _run(session: ort.InferenceSession, binding: ort.IOBinding) -> None:
    try:
        session.run_with_iobinding(binding)  # returns when the outputs are ready
    except Exception as error:
        raise EngineError(f'onnxruntime failed: {one_line(error)}') from None


def _ports(session: ort.InferenceSession) -> Ports:
    return {
        port.name: (
            TYPES.get(port.type, port.type),
            tuple(ANY if isinstance(size, str) else size for size in port.shape),
        )
        for port in (*session.get_inputs(), *session.get_outputs())
    }


class OrtBuffer:
    """A tensor that a session reads or writes, allocated once; on the CPU also a view as an array.

    :param dtype: NumPy's name of the number type.
    :param device: ``cpu`` or ``cuda``.
    """

    def __init__(self, name: str, dtype: str, shape: tuple[int, ...], device: str) -> None:
        self.name = name
        self.dtype = np.dtype(dtype)
        self.shape = shape
        self.value = ort.OrtValue.ortvalue_from_shape_and_type(shape, self.dtype, device, 0)
        self.array = self.value.numpy() if device == 'cpu' else None  # a view, not a copy

    def write(self, values: np.ndarray) -> None:
        """Copy values into the tensor.

        :raises EngineError: When their shape is not the tensor's.
        """
        check_shape(self.name, values, self.shape)
        if self.array is not None:
            np.copyto(self.array, values)
        else:
            self.value.update_inplace(np.ascontiguousarray(values))

    def read(self) -> np.ndarray:
        """Return the values; on the CPU a view of them."""
        return self.value.numpy() if self.array is None else self.array


def check_shape(name: str, values: np.ndarray, shape: tuple[int, ...]) -> None:
    """Refuse an array of another shape.

    :raises EngineError: Naming both shapes.
    """
    if values.shape != shape:
        raise EngineError(f'{name} is {list(values.shape)}, the graph takes {list(shape)}')
