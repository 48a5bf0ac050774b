"""The engine on TensorRT 10 and 11: NVIDIA GPUs, including a Jetson's.

Unverified: no GPU was available. The parts that need none are tested: the memory's layout
(``memory.py``), the choice of the plan (``machine.py``), and that the graphs build
(TensorRT-RTX's builder runs on a CPU).

One observation takes two CUDA graphs with one wait each::

    encode   pixels, proprio -> GPU, run, kept, positions -> host    wait: the host picks the bucket
    act      run on the first ``bucket`` tokens, actions -> host     wait: the chunk

Tokens never leave the GPU. The words are uploaded when the prompt changes.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lightvla_ros.contract import Manifest
from lightvla_ros.engine.base import Encoded, PromptIds
from lightvla_ros.engine.embedding import PromptWords
from lightvla_ros.engine.signature import policy_ports
from lightvla_ros.engine.tensorrt.machine import (
    exported_graphs,
    find_built,
    import_tensorrt,
    machine_facts,
)
from lightvla_ros.engine.tensorrt.memory import aligned, lay_out, profile_index
from lightvla_ros.errors import EngineError

if TYPE_CHECKING:
    from lightvla_ros.engine.tensorrt.plan import Plan


class TensorRTEngine:
    """Runs two plans that were built on this machine before.

    The engine is ready when constructed: every bucket has run once.

    :param threads: Not used; every engine takes it.
    :raises EngineError: When the folder has no engine for this machine, or CUDA or TensorRT fails.
    """

    backend = 'tensorrt'

    def __init__(self, policy_dir: Path, manifest: Manifest, threads: int = 1) -> None:
        policy_dir = Path(policy_dir)
        built = find_built(policy_dir, manifest, machine_facts())
        self.precision = exported_graphs(manifest).precision
        self.fingerprint = built.fingerprint
        self._buckets = manifest.tokens.buckets
        self._takes_proprio = manifest.proprio is not None
        self._words = PromptWords(policy_dir, manifest)
        self._prompt: PromptIds | None = None
        self._runs = 0
        with ExitStack() as stack:
            self._start(stack, manifest, policy_dir / built.encode, policy_dir / built.act)
            self._stack = stack.pop_all()  # from here on close() frees it

    def encode(self, pixels: np.ndarray, prompt: PromptIds, proprio: np.ndarray | None) -> Encoded:
        """See :meth:`Engine.encode`. It invalidates earlier results."""
        buffers = self._buffers
        self._runs += 1
        buffers.write('pixels', pixels)
        if proprio is not None:
            buffers.write('proprio', proprio)
        if prompt is not self._prompt:
            self._upload_prompt(prompt)
        self._launch(self._encode_graph)
        return Encoded(kept=tuple(buffers.host('kept').tolist()), handle=self._runs)

    def act(self, encoded: Encoded, bucket: int) -> np.ndarray:
        """See :meth:`Engine.act`."""
        self._check_latest(encoded)
        self._launch(self._act_graphs[profile_index(self._buckets, bucket)])
        return self._buffers.host('actions').copy()

    def kept_patches(self, encoded: Encoded) -> np.ndarray:
        """See :meth:`Engine.kept_patches`."""
        self._check_latest(encoded)
        return self._buffers.host('positions')[0, : sum(encoded.kept)].copy()

    def close(self) -> None:
        """Free the GPU's memory and all other resources."""
        self._stack.close()

    def _start(self, stack: ExitStack, manifest: Manifest, encode: Path, act: Path) -> None:
        """Load the plans, allocate the memory, and capture and run every graph."""
        from lightvla_ros.engine.tensorrt import cuda  # needs the bindings
        from lightvla_ros.engine.tensorrt.plan import Plan

        self._cuda = cuda
        self._stream = cuda.acquire(
            stack,
            'cudaStreamDestroy',
            'cudaStreamCreateWithFlags',
            cuda.cudart.cudaStreamNonBlocking,
        )
        trt = import_tensorrt()
        ports = policy_ports(manifest, self.precision, self._words.width)
        plans = [
            Plan(trt, path, wanted, self._buckets)
            for path, wanted in zip((encode, act), ports, strict=True)
        ]
        stack.callback(plans.clear)
        layout = lay_out(*ports)
        scratch = aligned(max(plan.scratch_bytes for plan in plans))
        self._buffers = cuda.Buffers(stack, self._stream, layout, scratch)
        uploads = ('pixels', 'proprio') if self._takes_proprio else ('pixels',)
        self._encode_graph = self._ready_graph(stack, plans[0], uploads, ('kept', 'positions'))
        self._act_graphs = [
            self._ready_graph(stack, plans[1], (), ('actions',), bucket) for bucket in self._buckets
        ]

    def _ready_graph(
        self,
        stack: ExitStack,
        plan: Plan,
        uploads: tuple[str, ...],
        results: tuple[str, ...],
        bucket: int | None = None,
    ) -> Any:
        """Return the CUDA graph of one run with its copies, after it has run once.

        Every graph has its own execution context, because a graph captures the context's profile
        and shapes and becomes invalid when they change. All share the scratch memory, since only
        one runs at a time.
        """
        stream = int(self._stream)
        contexts = [plan.context(self._buffers, stream, bucket)]
        stack.callback(contexts.clear)  # a graph needs its context for as long as it lives

        def enqueue() -> None:
            for name in uploads:
                self._buffers.upload(name)
            plan.enqueue(contexts[0], stream)
            for name in results:
                self._buffers.download(name)

        enqueue()  # the first run after a change of shape includes work that cannot be captured
        self._wait()
        graph = self._cuda.capture(stack, self._stream, enqueue)
        self._launch(graph)
        return graph

    def _upload_prompt(self, prompt: PromptIds) -> None:
        words, mask = self._words(prompt)
        self._prompt = None  # so that the next upload is not skipped if this one fails
        for name, values in (('words', words), ('word_mask', mask)):
            self._buffers.write(name, values)
            self._buffers.upload(name)
        self._prompt = prompt

    def _launch(self, graph: Any) -> None:
        self._cuda.call('cudaGraphLaunch', graph, self._stream)
        self._wait()

    def _wait(self) -> None:
        self._cuda.call('cudaStreamSynchronize', self._stream)

    def _check_latest(self, encoded: Encoded) -> None:
        """Refuse an observation whose tokens were overwritten."""
        if encoded.handle != self._runs:
            raise EngineError(
                'the tokens of this observation were overwritten by a later encode; call act '
                'before the next encode'
            )
