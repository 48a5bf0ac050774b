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
from torch import Tensor, nn

from lightvla_ros.export.errors import ExportError
from lightvla_ros.export.graphs import ActGraph, EncodeGraph
from lightvla_ros.vla.model import LightVLA

OPSET = 20
PRECISIONS = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}
INLINE_BYTES = 64 * 2**20  # larger weights go into a file of their own; ONNX's limit is 2 GiB


def write_graphs(model: LightVLA, prompt_length: int, folder: Path, precision: str) -> list[str]:
    """Write ``encode.onnx`` and ``act.onnx``, with ``.data`` beside them where they are large.

    :param model: In eval mode; converted to the precision where it lies.
    :param prompt_length: Positions of the prompt with BOS, P.
    :returns: Names of the files.
    :raises ExportError: When PyTorch cannot export a part.
    """
    model.eval().to(PRECISIONS[precision])
    config, dtype = model.config, PRECISIONS[precision]
    words = prompt_length - 1
    width, patches = config.language.width, config.patches
    context = 1 + int(config.proprio_size > 0) + words + config.action_slots + 1
    pixels = torch.zeros(config.cameras, 6, config.image_size, config.image_size)
    word_mask = torch.ones(1, words, dtype=torch.bool)
    inputs = {'pixels': pixels, 'words': torch.zeros(1, words, width), 'word_mask': word_mask}
    if config.proprio_size:
        inputs['proprio'] = torch.zeros(1, config.proprio_size)
    files = _write(
        EncodeGraph(model),
        inputs,
        ['tokens', 'positions', 'kept', 'context'],
        folder / 'encode.onnx',
        precision,
    )
    some = min(8, patches)
    inputs = {
        'tokens': torch.zeros(1, some, width, dtype=dtype),
        'positions': torch.arange(some)[None],
        'kept': torch.full((config.cameras,), some // config.cameras, dtype=torch.int32),
        'context': torch.zeros(1, context, width, dtype=dtype),
        'word_mask': word_mask,
    }
    bucket = torch.export.Dim('bucket', min=2, max=patches)
    shapes = {name: {1: bucket} if name in ('tokens', 'positions') else None for name in inputs}
    return files + _write(
        ActGraph(model), inputs, ['actions'], folder / 'act.onnx', precision, shapes
    )


def write_embedding(model: LightVLA, path: Path) -> None:
    """Write the table of token embeddings: float32 [vocabulary, D], row by row."""
    weight = model.language_model.model.embed_tokens.weight.detach()
    table = np.lib.format.open_memmap(path, 'w+', np.float32, tuple(weight.shape))
    for start in range(0, len(weight), 4096):
        table[start : start + 4096] = weight[start : start + 4096].float().numpy()
    table.flush()


def _write(
    module: nn.Module,
    inputs: dict[str, Tensor],
    outputs: list[str],
    path: Path,
    precision: str,
    shapes: dict | None = None,
) -> list[str]:
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
    program.model.metadata_props['precision'] = precision
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


def _line(error: Exception) -> str:
    return ' '.join(str(error).split())[:300]
