"""Tests without a GPU that graphs with a preset's true shapes build, using a few of its layers.

A whole 7B model does not build in 24 GB. All its layers are alike, so a few layers are enough.
"""

from __future__ import annotations

import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from lightvla_ros.export.onnx_files import write_act, write_encode
from lightvla_ros.export.tensorrt.network import build_plan, import_rtx, workspace_limit
from lightvla_ros.vla.config import VLAConfig
from lightvla_ros.vla.weights import used_shapes


class RandomWeights(Mapping[str, Tensor]):
    """Random weights for every parameter of a model: generated on access, always the same."""

    def __init__(self, config: VLAConfig) -> None:
        self._shapes = used_shapes(config)

    def __getitem__(self, name: str) -> Tensor:
        shape = self._shapes[name]
        random = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        return torch.randn(shape, generator=random) / (shape or (1,))[-1] ** 0.5

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


def prove(
    config: VLAConfig,
    precision: str,
    prompt_length: int,
    buckets: Sequence[int],
    say: Callable[[str], None],
    workspace: int | None = None,
) -> None:
    """Export both graphs with random weights and build them with TensorRT-RTX; keep no files.

    :param workspace: Memory that a layer may use while it runs [MiB]; None for no limit.
    :raises ExportError: When a graph cannot be exported or built.
    """
    trt = import_rtx()
    configure = workspace_limit(trt, workspace)
    weights = RandomWeights(config)
    with tempfile.TemporaryDirectory() as folder:
        for name, write, profiles in (
            ('encode.onnx', write_encode, ()),
            ('act.onnx', write_act, tuple(buckets)),
        ):
            path = Path(folder) / name
            say(f'{name} in {precision}')
            write(config, weights, precision, prompt_length, path)
            started = time.perf_counter()
            plan = build_plan(trt, path, profiles, configure, say)
            seconds = time.perf_counter() - started
            say(
                f'tensorrt-rtx {trt.__version__} {name}: {plan.nbytes / 1e6:.1f} MB in '
                f'{seconds:.1f} s' + (f', profiles {list(profiles)}' if profiles else '')
            )
            for file in Path(folder).iterdir():
                file.unlink()
