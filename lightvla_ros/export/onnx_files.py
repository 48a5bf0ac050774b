"""Writes the two ONNX files of a policy and its table of embeddings from weights on disk.

The graphs are traced on fake tensors, which have shapes but no numbers; then the weights are copied
from file to file, one at a time. So a model of 15 GB is exported with much less memory than that.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx_ir.tensor_adapters import TorchTensor
from onnxscript.optimizer import optimize_ir
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from lightvla_ros.errors import ExportError, one_line
from lightvla_ros.vla.config import VLAConfig
from lightvla_ros.vla.halves import ActHalf, EncodeHalf
from lightvla_ros.vla.layers import spell_out_attention
from lightvla_ros.vla.model import LightVLA
from lightvla_ros.vla.weights import NUMBERS

OPSET = 20
INLINE_BYTES = 64 * 2**20  # larger weights go into a file of their own; ONNX's limit is 2 GiB
EMBEDDING = 'language_model.model.embed_tokens.weight'

Weights = Mapping[str, Tensor]  # by the model's names; each is read on access
Progress = Callable[[int, int], None]  # bytes written, bytes in total


def write_encode(
    config: VLAConfig,
    weights: Weights,
    precision: str,
    prompt_length: int,
    path: Path,
    progress: Progress | None = None,
) -> list[str]:
    """Write the graph of towers, projector and pruner.

    :param prompt_length: Positions of the prompt with BOS, P.
    :returns: Names of the files; the weights of a large graph are stored in ``NAME.data``.
    :raises ExportError: When PyTorch cannot export it.
    """
    words = prompt_length - 1
    with _fake(NUMBERS[precision]):
        graph = EncodeHalf(LightVLA(config).eval())
        inputs = {
            'pixels': _zeros(config.cameras, 6, config.image_size, config.image_size),
            'words': _zeros(1, words, config.language.width),
            'word_mask': torch.ones(1, words, dtype=torch.bool),
        }
        if config.proprio_size:
            inputs['proprio'] = _zeros(1, config.proprio_size)
    outputs = ['tokens', 'positions', 'kept', 'context']
    program = _trace(path.name, graph, inputs, outputs, None)
    special = {'ends': lambda: weights[EMBEDDING][[config.bos_id, config.stop_id]]}
    return _write(program, weights, special, precision, path, progress)


def write_act(
    config: VLAConfig,
    weights: Weights,
    precision: str,
    prompt_length: int,
    path: Path,
    progress: Progress | None = None,
) -> list[str]:
    """Write the graph of language model and head; see :func:`write_encode`."""
    words, width = prompt_length - 1, config.language.width
    some, number = min(8, config.patches), NUMBERS[precision]
    context = config.context_length(prompt_length)
    with _fake(number):
        graph = ActHalf(LightVLA(config).eval())
        inputs = {
            'tokens': torch.zeros(1, some, width, dtype=number),
            'positions': torch.zeros(1, some, dtype=torch.int64),
            'kept': torch.ones(config.cameras, dtype=torch.int32),
            'context': torch.zeros(1, context, width, dtype=number),
            'word_mask': torch.ones(1, words, dtype=torch.bool),
        }
    bucket = torch.export.Dim('bucket', min=2, max=config.patches)
    shapes = {name: {1: bucket} if name in ('tokens', 'positions') else None for name in inputs}
    program = _trace(path.name, graph, inputs, ['actions'], shapes)
    return _write(program, weights, {}, precision, path, progress)


def write_embedding(weights: Weights, path: Path) -> None:
    """Write the table of token embeddings, float32 [vocabulary, D], in blocks of rows."""
    weight = weights[EMBEDDING]
    table = np.lib.format.open_memmap(path, 'w+', np.float32, tuple(weight.shape))
    for start in range(0, len(weight), 4096):
        table[start : start + 4096] = weight[start : start + 4096].float().numpy()
    table.flush()


@contextlib.contextmanager
def _fake(number: torch.dtype) -> Iterator[None]:
    """Make new tensors fake, with shapes but no numbers; parameters have type ``number``."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(number)
    try:
        with FakeTensorMode():
            yield
    finally:
        torch.set_default_dtype(default)


def _zeros(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.float32)


def _trace(
    name: str,
    graph: EncodeHalf | ActHalf,
    inputs: dict[str, Tensor],
    outputs: list[str],
    shapes: dict | None,
) -> ir.Model:
    """Turn a module into an ONNX model without weights."""
    spell_out_attention(graph)
    try:
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                graph,
                tuple(inputs.values()),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=outputs,
                dynamic_shapes=None if shapes is None else tuple(shapes.values()),
                verbose=False,
                optimize=False,  # the optimizer would read the numbers of fake tensors
            )
            for value in program.model.graph.initializers.values():
                if isinstance(value.const_value.raw, torch._subclasses.FakeTensor):
                    value.const_value = None
            optimize_ir(program.model)
    except Exception as error:  # the exporter may raise any type
        raise ExportError(f'{name}: PyTorch cannot export it: {_cause(error)}') from error
    return program.model


def _write(
    model: ir.Model,
    weights: Weights,
    special: dict[str, Callable[[], Tensor]],
    precision: str,
    path: Path,
    progress: Progress | None,
) -> list[str]:
    """Give each initializer its numbers, which are read when they are written; save the model."""
    number = NUMBERS[precision]

    def read(name: str) -> Tensor:
        return special[name]() if name in special else weights[name.removeprefix('model.')]

    for name, value in model.graph.initializers.items():
        if value.const_value is None:
            _fill(value, lambda name=name: read(name).to(number))
    for node in list(model.graph):
        _transpose_weight(node, lambda name: read(name).to(number).T.contiguous())
    large = sum(each.const_value.nbytes for each in model.graph.initializers.values())
    written = 0

    def report(tensor: ir.TensorProtocol, _: object) -> None:
        nonlocal written
        written += tensor.nbytes
        if progress is not None:
            progress(written, large)

    data = path.with_name(f'{path.name}.data')
    options = {'external_data': data.name, 'callback': report} if large > INLINE_BYTES else {}
    ir.save(model, path, max_workers=1, **options)
    onnx.checker.check_model(path)
    return [path.name, *([data.name] if options else [])]


def _fill(value: ir.Value, read: Callable[[], Tensor]) -> None:
    value.const_value = ir.LazyTensor(
        lambda: TorchTensor(read(), name=value.name),
        dtype=value.dtype,
        shape=value.shape,
        name=value.name,
    )


def _transpose_weight(node: ir.Node, read: Callable[[str], Tensor]) -> None:
    """Store a linear layer's weight in the orientation in which the graph multiplies by it.

    Otherwise every engine would transpose it while loading, with both copies in memory.
    """
    source = node.inputs[0] if node.op_type == 'Transpose' else None
    if source is None or not source.is_initializer() or len(source.shape) != 2:
        return
    turned, name = node.outputs[0], source.name
    if len(source.uses()) > 1:
        return
    source.graph.initializers.pop(name)
    value = ir.Value(
        name=f'{name}.T', shape=ir.Shape(reversed(source.shape)), type=ir.TensorType(source.dtype)
    )
    _fill(value, lambda: read(name))
    node.graph.register_initializer(value)
    turned.replace_all_uses_with(value)
    node.graph.remove(node, safe=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's progress lines and its libraries' deprecation warnings."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter('ignore')
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


def _cause(error: BaseException) -> str:
    """Return the original error, which the exporter wraps in advice of its own."""
    while error.__cause__ is not None:
        error = error.__cause__
    return one_line(error)
