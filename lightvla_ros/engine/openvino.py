"""The engine on OpenVINO: x86 and ARM processors, in fp32 or, if the processor has it, in bf16.

It reads the fp32 graphs that ``signature.py`` describes, and reduces the precision itself. The
pruner's scores stay in fp32 (in bf16 up to half of the queries pick another token): ``encode`` is
cut in two where they begin, and the second half is compiled separately. The cut costs 1 % to 7 %
of ``encode``. It is also made in fp32, so that the same path runs and is tested everywhere.
"""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

import numpy as np

from lightvla_ros.contract import Manifest, fingerprint
from lightvla_ros.engine.base import Encoded, PromptIds
from lightvla_ros.engine.embedding import PromptWords
from lightvla_ros.engine.openvino_split import split_at_scores
from lightvla_ros.engine.signature import ANY, Ports, check_ports, policy_ports
from lightvla_ros.errors import EngineError, one_line

try:
    import openvino as ov
except ImportError as error:
    raise EngineError(
        f"openvino cannot be imported ({error}): pip install 'lightvla_ros[openvino]'"
    ) from None

DEVICE = 'CPU'
NUMBERS = {'fp32': 'f32', 'bf16': 'bf16'}  # OpenVINO's names


class OpenVinoEngine:
    """Compiled graphs on buffers that are allocated once; ready when constructed.

    ``act`` is compiled once for all buckets: one graph per bucket was up to 10 % faster but held
    the weights once per bucket. It reads the first rows of ``tokens`` in place.

    :param threads: Threads per graph. They are not pinned, because a pinned thread would wait for
        other programs on its core.
    :param precision: ``fp32`` or ``bf16``, for everything except the pruner's scores.
    """

    backend = 'openvino-cpu'

    def __init__(
        self, policy_dir: Path, manifest: Manifest, threads: int = 1, precision: str = 'fp32'
    ) -> None:
        core = ov.Core()
        _check_precision(core, precision)
        graphs = manifest.graphs
        if graphs.precision != 'fp32':
            raise EngineError(
                f'{policy_dir}: its graphs are in {graphs.precision}; openvino takes fp32 and '
                'reduces the precision itself: export the policy with --precision fp32'
            )
        encode = _read(core, Path(policy_dir) / graphs.encode)
        act = _read(core, Path(policy_dir) / graphs.act)
        self._prompt_words = PromptWords(policy_dir, manifest)
        encode_ports, act_ports = policy_ports(manifest, 'fp32', self._prompt_words.width)
        check_ports(graphs.encode, _ports(encode, encode_ports), encode_ports)
        check_ports(graphs.act, _ports(act, act_ports), act_ports)
        self.precision = precision
        self.fingerprint = fingerprint(
            {
                'engine': 'openvino',
                'version': ov.__version__,
                'precision': precision,
                'graphs': manifest.graph_hashes,
            }
        )
        self._prompt: PromptIds | None = None
        self._buffers = {
            name: np.zeros(shape, dtype)
            for name, (dtype, shape) in {**act_ports, **encode_ports}.items()
        }
        features, *choice = split_at_scores(encode)
        self._encode = [
            self._request(_compile(core, features, threads, precision)),
            *(self._request(_compile(core, half, threads, 'fp32')) for half in choice),
        ]
        self._act = _compile(core, act, threads, precision)
        self._act_requests = {
            bucket: self._request(self._act, bucket) for bucket in manifest.tokens.buckets
        }
        # Kernels are made at the first call of a length, which took up to six times as long.
        for request in (*self._encode, *self._act_requests.values()):
            _run(request)

    def encode(self, pixels: np.ndarray, prompt: PromptIds, proprio: np.ndarray | None) -> Encoded:
        """See :meth:`Engine.encode`."""
        if prompt is not self._prompt:  # once per instruction
            words, mask = self._prompt_words(prompt)
            self._put('words', words)
            self._put('word_mask', mask)
            self._prompt = prompt
        self._put('pixels', pixels)
        if proprio is not None:
            self._put('proprio', proprio)
        for request in self._encode:
            _run(request)
        return Encoded(kept=tuple(self._buffers['kept'].tolist()), tensors=self._buffers)

    def act(self, encoded: Encoded, bucket: int) -> np.ndarray:
        """See :meth:`Engine.act`."""
        if bucket not in self._act_requests:
            self._act_requests[bucket] = self._request(self._act, bucket)
        _run(self._act_requests[bucket])
        return self._buffers['actions'].copy()

    def kept_patches(self, encoded: Encoded) -> np.ndarray:
        """See :meth:`Engine.kept_patches`."""
        return self._buffers['positions'][0, : sum(encoded.kept)].copy()

    def close(self) -> None:
        """Free the compiled graphs."""
        self._act_requests.clear()
        self._encode.clear()
        del self._act

    def _request(self, model: ov.CompiledModel, bucket: int | None = None) -> ov.InferRequest:
        """Bind a graph to the buffers; a dynamic axis is bound to the first ``bucket`` rows."""
        request = model.create_infer_request()
        for port in (*model.inputs, *model.outputs):
            array = self._buffer(port)
            if port.partial_shape.is_dynamic:
                array = array[:, :bucket]
            request.set_tensor(port, ov.Tensor(array, shared_memory=True))
        return request

    def _buffer(self, port: ov.ConstOutput) -> np.ndarray:
        """Return the buffer of a port; create it if the port connects both halves of ``encode``."""
        name = _name(port, self._buffers)
        if name not in self._buffers:
            array = np.zeros(tuple(port.shape), port.element_type.to_dtype())
            self._buffers.update(dict.fromkeys(port.names, array))
        return self._buffers[name]

    def _put(self, name: str, value: np.ndarray) -> None:
        buffer = self._buffers[name]
        if buffer.shape != value.shape:
            raise EngineError(f'{name} is {value.shape}, the graph takes {buffer.shape}')
        buffer[...] = value


def _check_precision(core: ov.Core, precision: str) -> None:
    if precision not in NUMBERS:
        raise EngineError(f'precision {precision!r} is not one of {", ".join(NUMBERS)}')
    if precision == 'bf16' and 'BF16' not in core.get_property(DEVICE, 'OPTIMIZATION_CAPABILITIES'):
        processor = core.get_property(DEVICE, 'FULL_DEVICE_NAME')
        raise EngineError(
            f'this processor ({processor}) does not compute in bf16, which on x86 needs AVX-512 or '
            'AMX; use precision fp32'
        )


def _read(core: ov.Core, path: Path) -> ov.Model:
    try:
        model = core.read_model(path)
    except RuntimeError as error:
        raise EngineError(f'{path}: openvino cannot load it: {one_line(error)}') from None
    return model


def _ports(model: ov.Model, wanted: Container[str]) -> Ports:
    """Return inputs and outputs in the form of :func:`policy_ports`."""
    found = {}
    for port in (*model.inputs, *model.outputs):
        shape = tuple(ANY if each.is_dynamic else each.get_length() for each in port.partial_shape)
        found[_name(port, wanted)] = (np.dtype(port.element_type.to_dtype()).name, shape)
    return found


def _name(port: ov.Output | ov.ConstOutput, known: Container[str]) -> str:
    """Return the known one of a port's names; nodes that only rename or reshape add others."""
    return next((name for name in sorted(port.names) if name in known), port.any_name)


def _compile(core: ov.Core, model: ov.Model, threads: int, precision: str) -> ov.CompiledModel:
    options = {
        'PERFORMANCE_HINT': 'LATENCY',
        'NUM_STREAMS': 1,
        'INFERENCE_NUM_THREADS': threads,
        'ENABLE_CPU_PINNING': False,
        'INFERENCE_PRECISION_HINT': NUMBERS[precision],
    }
    try:
        compiled = core.compile_model(model, DEVICE, options)
    except RuntimeError as error:
        raise EngineError(f'openvino cannot compile a graph: {one_line(error)}') from None
    used = compiled.get_property('INFERENCE_PRECISION_HINT').get_type_name()
    if used != NUMBERS[precision]:  # it is a hint
        raise EngineError(f'openvino computes in {used} instead of {precision}; choose {used}')
    return compiled


def _run(request: ov.InferRequest) -> None:
    try:
        request.start_async()
        request.wait()
    except RuntimeError as error:
        raise EngineError(f'openvino failed: {one_line(error)}') from None
