"""An ONNX graph -> a plan in memory, for TensorRT (10 and 11) and TensorRT-RTX."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightvla_ros.engine.signature import ANY
from lightvla_ros.engine.tensorrt.api import TensorRT, sizes_of
from lightvla_ros.engine.tensorrt.machine import error_log
from lightvla_ros.engine.tensorrt.memory import sized
from lightvla_ros.errors import BuildError, one_line
from lightvla_ros.export.tensorrt.progress import ctrl_c_stops, progress_monitor

if TYPE_CHECKING:
    import tensorrt

Configure = Callable[['tensorrt.IBuilderConfig'], None]
Say = Callable[[str], None]

BUCKETED = ('tokens', 'positions')  # inputs whose length is that of the bucket

RTX_TARGET = 'tensorrt-rtx'

# The first pattern that matches a message gives the advice.
ADVICE = (
    (
        r'initializer',
        'large weights are stored beside the graph in NAME.data; copy that file too, or export the '
        'policy again',
    ),
    (
        r'NonZero|data.dependent',
        'the size of its output is not known before it runs, so no CUDA graph can be captured; '
        'export the policy again with this release, whose graphs sort and count instead',
    ),
    (
        r'memory|workspace|alloc',
        'allow more with --workspace MIB, close other programs that use the GPU, or export fewer '
        'buckets',
    ),
    (
        r'inherently false|contradict|optimization profile|out of bounds',
        "the graph does not accept the manifest's buckets; export the policy again",
    ),
    (
        r'implementation for node|no runners|not supported|unsupported',
        'this TensorRT has no kernel for it; try a newer one, another --precision, or more '
        '--workspace MIB',
    ),
    (r'driver|cudaError|CUDA init', 'TensorRT cannot use a GPU here; check with nvidia-smi'),
)


def build_plan(
    trt: TensorRT,
    path: Path,
    buckets: tuple[int, ...],
    configure: Configure,
    progress: Say,
) -> tensorrt.IHostMemory:
    """Build a graph's plan.

    :param trt: ``tensorrt`` or ``tensorrt_rtx``.
    :param path: The ONNX file; its external data is in the same folder.
    :param buckets: Each gives one optimisation profile; empty for a static graph.
    :param configure: Sets further options.
    :param progress: Takes progress lines.
    :returns: A buffer, with ``nbytes``.
    :raises BuildError: When TensorRT cannot parse the graph or build it.
    :raises KeyboardInterrupt: On Ctrl-C, after TensorRT has stopped the build.
    """
    log = error_log(trt)
    log.take()
    try:
        builder = trt.Builder(log)
    except TypeError:  # pybind11 raises it for the null pointer
        raise build_error(
            path.name, _first(log, 'TensorRT cannot create a builder: it finds no driver')
        ) from None
    network = _parse(trt, builder, path, log)
    refuse_data_dependence(trt, network, path.name)
    config = builder.create_builder_config()
    # TF32, which is on by default, rounds the factors of fp32 products to 10 bits. Graphs use fp32
    # where precision matters: the pruner's scores decide which tokens are kept.
    config.clear_flag(trt.BuilderFlag.TF32)
    monitor = progress_monitor(trt, path.stem, progress)
    config.progress_monitor = monitor
    configure(config)
    log.take()  # messages about an unsuitable timing cache do not explain a later failure
    _add_profiles(builder, config, network, buckets, path.name)
    with ctrl_c_stops(monitor):
        plan = builder.build_serialized_network(network, config)
    if monitor.interrupted:
        raise KeyboardInterrupt
    if plan is None:
        raise build_error(path.name, _first(log, 'TensorRT does not say why'))
    return plan


def workspace_limit(trt: TensorRT, workspace: int | None) -> Configure:
    """Return a function that limits the memory that a layer may use while it runs.

    :param workspace: [MiB]; None for no limit.
    :raises BuildError: When it is below 1.
    """
    if workspace is not None and workspace < 1:
        raise BuildError(f'--workspace is {workspace} MiB; give at least 1, or leave it out')

    def configure(config: tensorrt.IBuilderConfig) -> None:
        if workspace is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace << 20)

    return configure


def _parse(
    trt: TensorRT, builder: tensorrt.Builder, path: Path, log: Any
) -> tensorrt.INetworkDefinition:
    # TensorRT 11 ignores the flag, since all its networks are strongly typed; TensorRT 10 needs it
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(path)):
        fault = parser.get_error(0)
        node = f'node {fault.node_name()} ({fault.node_operator()}): ' if fault.node_name() else ''
        raise build_error(path.name, f'{node}{fault.desc()}')
    return network


def refuse_data_dependence(trt: TensorRT, network: tensorrt.INetworkDefinition, name: str) -> None:
    """Refuse layers that TensorRT builds but cannot capture into a CUDA graph.

    TensorRT-RTX does not even build them.

    :param trt: ``tensorrt`` or ``tensorrt_rtx``.
    :param network: The parsed network.
    :param name: The graph's name, for the error.
    :raises BuildError: Naming the layer.
    """
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type == trt.LayerType.NON_ZERO:
            raise build_error(name, f'layer {layer.name} (NonZero)')


def _add_profiles(
    builder: tensorrt.Builder,
    config: tensorrt.IBuilderConfig,
    network: tensorrt.INetworkDefinition,
    buckets: tuple[int, ...],
    name: str,
) -> None:
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    shapes = {port.name: sizes_of(port.shape) for port in inputs}
    dynamic = {port: shape for port, shape in shapes.items() if ANY in shape}
    bucketed = BUCKETED if buckets else ()
    for port, shape in dynamic.items():
        if port not in bucketed or shape[:1] + shape[2:] != tuple(s for s in shape if s != ANY):
            raise BuildError(
                f'{name}: {port} has the shape {list(shape)}, but only the second axis of tokens '
                'and positions of act may be dynamic; export the policy again'
            )
    for bucket in buckets:
        profile = builder.create_optimization_profile()
        for port, shape in dynamic.items():
            fixed = sized(shape, bucket)
            # TensorRT also takes a tuple, which the stubs do not tell
            profile.set_shape(port, fixed, fixed, fixed)  # type: ignore[arg-type]
        config.add_optimization_profile(profile)


def _first(log: Any, otherwise: str) -> str:
    """Return the first error that TensorRT logged; the others are consequences."""
    return next(iter(log.take()), otherwise)


def import_rtx() -> TensorRT:
    """Import ``tensorrt_rtx``, which is for GPUs in PCs; its builder runs without a GPU.

    :raises BuildError: When it cannot be imported.
    """
    try:
        import tensorrt_rtx
    except ImportError as error:
        raise BuildError(
            f'tensorrt_rtx cannot be imported ({error}); pip install tensorrt-rtx-cu13'
        ) from None
    return tensorrt_rtx


def build_error(where: str, said: str) -> BuildError:
    """Return an error with TensorRT's message about a graph, and advice if there is any."""
    for pattern, advice in ADVICE:
        if re.search(pattern, said, re.IGNORECASE):
            return BuildError(f'{where}: {one_line(said)}; {advice}')
    return BuildError(f'{where}: {one_line(said)}')
