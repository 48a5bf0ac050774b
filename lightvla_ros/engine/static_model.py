"""The PyTorch model on one device with static shapes, replayed as CUDA graphs.

A GPU spends most of an eager chunk on starting kernels, one after the other, so pruning saves
nothing there. A CUDA graph starts all kernels of a half of the model at once: one graph for
``encode``, one per bucket for ``act``, on buffers that are allocated once::

    encode   pixels, words, word_mask, proprio -> tokens, positions, kept, context
    act      tokens[:rows], positions[:rows], kept, context, word_mask -> actions

``rows`` is the bucket, enlarged so that the whole sequence is a multiple of ``MULTIPLE``; rows
beyond the kept tokens are masked as keys. On a CPU the same functions run without graphs, which
tests everything but the capture.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightvla_ros.errors import EngineError, one_line
from lightvla_ros.vla.fp8 import to_fp8
from lightvla_ros.vla.fused import fuse_layers
from lightvla_ros.vla.halves import ActHalf, EncodeHalf
from lightvla_ros.vla.model import LightVLA

MULTIPLE = 8  # kernels for other numbers of tokens use unaligned, slower reads
SHAPES = 64  # most shapes that a block may be compiled for in one process
WARM_UPS = 3  # runs before a capture; libraries allocate their work space in the first one
CACHE_VARIABLE = 'TORCHINDUCTOR_CACHE_DIR'  # PyTorch's own; a user's value is kept
CACHE = Path.home() / '.cache' / 'lightvla_ros' / 'compiled'

Scales = Sequence[Sequence[float]]  # per decoder layer: largest inputs, see fp8.PRODUCTS


class Port:
    """A tensor on the device that the host writes or reads.

    :param array: The host's copy in pinned memory, as a NumPy array.
    """

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
        self.tensor = torch.zeros(shape, dtype=dtype, device=device)
        self._host = torch.zeros(shape, dtype=dtype, pin_memory=device.type == 'cuda')
        self.array: np.ndarray = self._host.numpy()

    def write(self, values: np.ndarray) -> None:
        """Copy values to the host's copy.

        :raises EngineError: When their shape is not the tensor's.
        """
        if values.shape != self.array.shape:
            raise EngineError(
                f'an input is {list(values.shape)}, the engine takes {list(self.array.shape)}'
            )
        np.copyto(self.array, values)

    def upload(self) -> None:
        """Start the copy to the device."""
        self.tensor.copy_(self._host, non_blocking=True)

    def download(self) -> None:
        """Start the copy to the host; it is complete after the next wait."""
        self._host.copy_(self.tensor, non_blocking=True)


class StaticModel:
    """Both halves of a model, ready to run when constructed.

    :param model: The model, on any device. It is changed: its decoder layers are fused, and all of
        it but the table of embeddings moves to ``device``.
    :param words: Number of words of a prompt without BOS, P - 1.
    :param buckets: Numbers of visual tokens, ascending; the last holds all.
    :param dtype: Type of weights and activations; norms and scores are computed in fp32.
    :param largest: Largest activations; with them the decoder's products are in fp8.
    :param compiled: Whether the blocks are compiled, once for each shape. Needs a C++ compiler,
        and Triton on a GPU; the results are stored in ``CACHE``.
    :raises EngineError: When memory is too small, or PyTorch or the driver fails.
    """

    def __init__(
        self,
        model: LightVLA,
        words: int,
        buckets: Sequence[int],
        device: str,
        dtype: torch.dtype,
        *,
        largest: Scales | None = None,
        compiled: bool = True,
    ) -> None:
        self.seconds: dict[str, float] = {}  # how long each step of the preparation took
        self._device = torch.device(device)
        self._dtype = dtype
        self._stream = torch.cuda.Stream(self._device) if self._on_gpu else None
        blocks = ''
        if compiled:  # a machine without a compiler can do without
            blocks = ' with compiled blocks (--no-compile, or compile: false for the node)'
        with _errors(f'prepare the model{blocks}'), torch.no_grad():
            started = time.perf_counter()
            self._embed = model.language_model.model.embed_tokens
            self._encode_half = EncodeHalf(model)
            self._act_half = ActHalf(model)
            _place(model, self._encode_half, self._device, dtype, largest)
            self._align(model)
            self.seconds['place'] = time.perf_counter() - started
            self._allocate(model, words, buckets)
            if self._on_gpu:
                # weights and buffers came by the default stream, which our own does not wait for
                torch.cuda.synchronize()
            if compiled:
                _compile_blocks(model)
            self._prepare(buckets, compiled)

    @property
    def _on_gpu(self) -> bool:
        return self._device.type == 'cuda'

    @torch.no_grad()
    def set_prompt(self, ids: np.ndarray, mask: np.ndarray) -> None:
        """Upload the words of a prompt.

        :param ids: int64 [1, P]; ``mask`` bool [1, P], see :class:`PromptIds`.
        :raises EngineError: When an id has no embedding.
        """
        ids = ids[:, 1:]
        if ids.min() < 0 or ids.max() >= self._embed.num_embeddings:
            raise EngineError(
                f'the tokenizer gives id {ids.max()}, but the table of embeddings has '
                f'{self._embed.num_embeddings}; tokenizer and weights are of different policies'
            )
        self.words.write(self._embed(torch.from_numpy(ids)).float().numpy())
        self.word_mask.write(mask[:, :-1])
        with _errors('upload the prompt'), self._current_stream():
            self.words.upload()
            self.word_mask.upload()

    @torch.no_grad()
    def encode(self) -> None:
        """Run the first half on the host's pixels and proprio; ``kept`` is on the host then."""
        with _errors('run'), self._current_stream():
            self.pixels.upload()
            if self.proprio is not None:
                self.proprio.upload()
            self._encode_graph()
            self.kept.download()
            self.positions.download()
            self._wait()

    @torch.no_grad()
    def act(self, bucket: int) -> None:
        """Run the second half; ``actions`` are on the host then."""
        with _errors('run'), self._current_stream():
            self._act_graphs[bucket]()
            self.actions.download()
            self._wait()

    def close(self) -> None:
        """Free the graphs, the buffers and the weights."""
        self.__dict__.clear()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def _align(self, model: LightVLA) -> None:
        towers = model.vision_backbone
        for tower in (towers.featurizer, towers.fused_featurizer):
            tower.multiple = MULTIPLE
        if self._on_gpu:
            towers.run_towers = _SideBySide(towers.featurizer, towers.fused_featurizer)

    def _allocate(self, model: LightVLA, words: int, buckets: Sequence[int]) -> None:
        config, device = model.config, self._device
        context = config.context_length(1 + words)
        self._rows = {each: each + -(each + context) % MULTIPLE for each in buckets}
        rows, width = max(self._rows.values()), config.language.width
        size = config.image_size

        def port(dtype: torch.dtype, *shape: int) -> Port:
            return Port(shape, dtype, device)

        self.pixels = port(torch.float32, config.cameras, 6, size, size)
        self.words = port(torch.float32, 1, words, width)
        self.word_mask = port(torch.bool, 1, words)
        self.word_mask.array[:] = True
        self.word_mask.upload()
        self.proprio = None
        if config.proprio_size:
            self.proprio = port(torch.float32, 1, config.proprio_size)
        self.positions = port(torch.int64, 1, rows)
        self.kept = port(torch.int32, config.cameras)
        self.actions = port(torch.float32, config.chunk_length, config.action_size)
        # rows beyond all visual tokens are never written: they stay zero and masked
        self.tokens = torch.zeros(1, rows, width, dtype=self._dtype, device=device)
        self.context = torch.zeros(1, context, width, dtype=self._dtype, device=device)
        self._patches = config.patches

    def _run_encode(self) -> None:
        proprio = None if self.proprio is None else self.proprio.tensor
        tokens, positions, kept, context = self._encode_half(
            self.pixels.tensor, self.words.tensor, self.word_mask.tensor, proprio
        )
        self.tokens[:, : self._patches].copy_(tokens)
        self.positions.tensor[:, : self._patches].copy_(positions)
        self.kept.tensor.copy_(kept)
        self.context.copy_(context)

    def _run_act(self, bucket: int) -> None:
        rows = self._rows[bucket]
        # no more than the bucket, as in every engine, also where the rows are more
        kept = self.kept.tensor.sum(0, keepdim=True).clamp(max=bucket)
        actions = self._act_half(
            self.tokens[:, :rows],
            self.positions.tensor[:, :rows],
            kept,
            self.context,
            self.word_mask.tensor,
        )
        self.actions.tensor.copy_(actions)

    def _prepare(self, buckets: Sequence[int], compiled: bool) -> None:
        """Warm up and capture every graph, and say on stderr how long it took."""
        steps: dict[str, Callable[[], None]] = {'encode': self._run_encode}
        for bucket in buckets:
            steps[f'act {bucket}'] = lambda bucket=bucket: self._run_act(bucket)
        pool = torch.cuda.graph_pool_handle() if self._on_gpu else None
        graphs = []
        for number, (name, run) in enumerate(steps.items(), start=1):
            started = time.perf_counter()
            graphs.append(self._captured(run, pool))
            self.seconds[name] = time.perf_counter() - started
            if compiled and self.seconds[name] > 1:
                print(
                    f'torch-cuda: {name} is compiled ({number} of {len(steps)}, '
                    f'{self.seconds[name]:.1f} s); the next start takes it from '
                    f'{os.environ[CACHE_VARIABLE]}',
                    file=sys.stderr,
                    flush=True,
                )
        self._encode_graph, *acts = graphs
        self._act_graphs = dict(zip(buckets, acts, strict=True))

    def _captured(self, run: Callable[[], None], pool: Any) -> Callable[[], None]:
        """Return a function that replays ``run``, which has run before."""
        with self._current_stream():
            for _ in range(WARM_UPS if self._on_gpu else 1):
                run()
            self._wait()
        if not self._on_gpu:
            return run
        graph = torch.cuda.CUDAGraph()
        # All graphs share their work space, because only one runs at a time and results are in
        # buffers outside of it. Thread-local: CUDA calls of other threads must not break a capture.
        with torch.cuda.graph(
            graph, pool=pool, stream=self._stream, capture_error_mode='thread_local'
        ):
            run()
        return graph.replay

    def _current_stream(self) -> torch.cuda.StreamContext:
        return torch.cuda.stream(self._stream)  # no effect with None

    def _wait(self) -> None:
        if self._stream is not None:
            self._stream.synchronize()


class _SideBySide:
    """Runs the two towers on two streams; a capture records them as parallel branches.

    It holds the towers and not the backbone, which holds it: in a circle their weights would stay
    on the GPU after :meth:`StaticModel.close` until Python's next garbage collection.
    """

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        self._first, self._second = first, second
        self._side = torch.cuda.Stream()

    def __call__(self, images: Tensor, language: Tensor | None) -> tuple[Tensor, Tensor]:
        """See :meth:`VisionBackbone.run_towers`."""
        main = torch.cuda.current_stream()
        self._side.wait_stream(main)
        with torch.cuda.stream(self._side):
            second = self._second(images[:, 3:], language)
        first = self._first(images[:, :3], language)
        main.wait_stream(self._side)
        return first, second


@contextmanager
def _errors(what: str) -> Iterator[None]:
    """Turn PyTorch's errors into an EngineError of one line."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise EngineError(
            f'torch-cuda cannot {what}: the memory of the GPU is too small: {one_line(error)}'
        ) from None
    except RuntimeError as error:  # errors of CUDA and of the compiler are subclasses
        raise EngineError(f'torch-cuda cannot {what}: {one_line(error)}') from None


def _place(
    model: LightVLA,
    encode_half: EncodeHalf,
    device: torch.device,
    dtype: torch.dtype,
    largest: Scales | None,
) -> None:
    """Fuse the decoder layers and move everything but the table of embeddings to the device."""
    llama = model.language_model.model
    # the table stays on the host, which looks up the words of a prompt once
    embed, llama.embed_tokens = llama.embed_tokens, None
    for number, layer in enumerate(fuse_layers(llama)):
        layer.to(device, dtype)
        # ADP reads the first layer's projections, and must keep what it keeps in 16 bits
        if largest is not None and (number or model.config.pruning.method != 'adp'):
            to_fp8(layer, tuple(largest[number]))
        if device.type == 'cuda':
            torch.cuda.empty_cache()  # the parts of the layer, if the model was on the GPU
    layers, llama.layers = llama.layers, nn.ModuleList()
    encode_half.to(device, dtype)  # all other parts, and the embeddings of BOS and stop
    llama.layers = layers
    embed.cpu()


def _compile_blocks(model: LightVLA) -> None:
    """Have every block compiled when it first runs with a shape."""
    os.environ.setdefault(CACHE_VARIABLE, str(CACHE))
    towers, llama = model.vision_backbone, model.language_model.model
    # the default limit is below the number of shapes: two kinds of blocks, buckets, precisions
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, SHAPES)
    for block in (*towers.featurizer.blocks, *towers.fused_featurizer.blocks, *llama.layers):
        block.compile(dynamic=False)
