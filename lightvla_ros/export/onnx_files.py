"""From PyTorch to the two ONNX files of a policy, and its table of embeddings."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor

from lightvla_ros.export.errors import ExportError
from lightvla_ros.export.graphs import ActGraph, EncodeGraph
from lightvla_ros.vla.model import LightVLA

OPSET = 20
PRECISIONS = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}
NAMES = {number: name for name, number in PRECISIONS.items()}
INLINE_BYTES = 64 * 2**20  # larger weights go into a file of their own; ONNX's limit is 2 GiB


def write_encode(model: LightVLA, prompt_length: int, path: Path) -> list[str]:
    """Write the graph of towers, projector and pruner, in the numbers that the model is in.

    :param prompt_length: Positions of the prompt with BOS, P.
    :returns: Names of the files: weights of a large graph lie in ``NAME.data``.
    :raises ExportError: When PyTorch cannot export it.
    """
    config, words = model.config, prompt_length - 1
    inputs = {
        'pixels': torch.zeros(config.cameras, 6, config.image_size, config.image_size),
        'words': torch.zeros(1, words, config.language.width),
        'word_mask': torch.ones(1, words, dtype=torch.bool),
    }
    if config.proprio_size:
        inputs['proprio'] = torch.zeros(1, config.proprio_size)
    outputs = ['tokens', 'positions', 'kept', 'context']
    return _write(EncodeGraph(model), inputs, outputs, path)


def write_act(model: LightVLA, prompt_length: int, path: Path) -> list[str]:
    """Write the graph of language model and head; see :func:`write_encode`."""
    config, words = model.config, prompt_length - 1
    width, some = config.language.width, min(8, config.patches)
    context = 1 + int(config.proprio_size > 0) + words + config.action_slots + 1
    number = model.projector.fc1.weight.dtype
    inputs = {
        'tokens': torch.zeros(1, some, width, dtype=number),
        'positions': torch.arange(some)[None],
        'kept': torch.ones(config.cameras, dtype=torch.int32),
        'context': torch.zeros(1, context, width, dtype=number),
        'word_mask': torch.ones(1, words, dtype=torch.bool),
    }
    bucket = torch.export.Dim('bucket', min=2, max=config.patches)
    shapes = {name: {1: bucket} if name in ('tokens', 'positions') else None for name in inputs}
    return _write(ActGraph(model), inputs, ['actions'], path, shapes)


def write_embedding(model: LightVLA, path: Path) -> None:
    """Write the table of token embeddings: float32 [vocabulary, D], row by row."""
    weight = model.language_model.model.embed_tokens.weight.detach()
    table = np.lib.format.open_memmap(path, 'w+', np.float32, tuple(weight.shape))
    for start in range(0, len(weight), 4096):
        table[start : start + 4096] = weight[start : start + 4096].float().numpy()
    table.flush()


def _write(
    module: EncodeGraph | ActGraph,
    inputs: dict[str, Tensor],
    outputs: list[str],
    path: Path,
    shapes: dict | None = None,
) -> list[str]:
    module.eval()
    try:
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                module,
                tuple(inputs.values()),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=outputs,
                dynamic_shapes=None if shapes is None else tuple(shapes.values()),
                verbose=False,
            )
    except Exception as error:  # the exporter raises what it likes
        raise ExportError(f'{path.name}: PyTorch cannot export it: {_line(error)}') from error
    number = module.model.projector.fc1.weight.dtype
    program.model.metadata_props['precision'] = NAMES[number]
    size = sum(value.const_value.nbytes for value in program.model.graph.initializers.values())
    program.save(path, external_data=size > INLINE_BYTES)
    onnx.checker.check_model(path)
    data = path.with_name(f'{path.name}.data')
    return [path.name, *([data.name] if data.exists() else [])]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress lines and its libraries' deprecations to itself."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter('ignore')
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


def _line(error: BaseException) -> str:
    """Return what went wrong at first: the exporter wraps it in advice of its own."""
    while error.__cause__ is not None:
        error = error.__cause__
    return ' '.join(str(error).split())[:300]
