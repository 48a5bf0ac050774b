"""An ONNX graph -> a plan in memory. One code for TensorRT (10 and 11) and TensorRT-RTX."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from lightvla_ros.engine.signature import ANY
from lightvla_ros.engine.tensorrt.machine import error_log
from lightvla_ros.engine.tensorrt.memory import sized
from lightvla_ros.errors import BuildError, one_line
from lightvla_ros.export.tensorrt.progress import ctrl_c_stops, progress_monitor

Configure = Callable[[Any], None]  # sets options of an IBuilderConfig
Say = Callable[[str], None]

BUCKETED = ('tokens', 'positions')  # the inputs that are as long as the bucket

RTX_TARGET = 'tensorrt-rtx'

# In this order: a message of two kinds gets the advice of the first.
ADVICE = (
    (
        r'initializer',
        'large weights lie beside the graph in NAME.data; copy that too or export the policy again',
    ),
    (
        r'NonZero|data.dependent',
        'how many it finds is not known before it runs, so no CUDA graph can be captured; export '
        'the policy again with this release, whose graphs sort and count instead',
    ),
    (
        r'memory|workspace|alloc',
        'give it more with --workspace MIB, close what else uses the GPU, or export fewer buckets',
    ),
    (
        r'inherently false|contradict|optimization profile|out of bounds',
        "the graph does not take the manifest's buckets; export the policy again",
    ),
    (
        r'implementation for node|no runners|not supported|unsupported',
        'this TensorRT has no kernel for it; try a newer one, another --precision, or more '
        '--workspace MIB',
    ),
    (r'driver|cudaError|CUDA init', 'TensorRT cannot use a GPU here; look at nvidia-smi'),
)


def build_plan(
    trt: ModuleType,
    path: Path,
    buckets: tuple[int, ...],
    configure: Configure,
    progress: Say,
) -> Any:
    """Build a graph's plan.

    :param trt: ``tensorrt`` or ``tensorrt_rtx``.
    :param path: The ONNX file; its external data lies beside it.
    :param buckets: One optimisation profile each; empty for a graph that is static.
    :param configure: Sets further options.
    :param progress: Takes lines on how far it is.
    :returns: TensorRT's ``IHostMemory``: a buffer, with ``nbytes``.
    :raises BuildError: When TensorRT cannot parse the graph or build it.
    :raises KeyboardInterrupt: After TensorRT has stopped the build for it.
    """
    log = error_log(trt)
    log.take()
    try:
        builder = trt.Builder(log)
    except TypeError:  # what pybind11 makes of the null pointer
        raise build_error(path.name, _first(log, 'no builder: TensorRT finds no driver')) from None
    network = _parse(trt, builder, path, log)
    refuse_data_dependence(trt, network, path.name)
    config = builder.create_builder_config()
    # On by default, TF32 rounds the factors of fp32 products to 10 bits. What is in fp32 is so for
    # precision: the pruner's scores decide which tokens are kept.
    config.clear_flag(trt.BuilderFlag.TF32)
    monitor = progress_monitor(trt, path.stem, progress)
    config.progress_monitor = monitor
    configure(config)
    log.take()  # what is said of a timing cache that does not fit is no cause of a later failure
    _add_profiles(builder, config, network, buckets, path.name)
    with ctrl_c_stops(monitor):
        plan = builder.build_serialized_network(network, config)
    if monitor.interrupted:
        raise KeyboardInterrupt
    if plan is None:
        raise build_error(path.name, _first(log, 'TensorRT does not say why'))
    return plan


def workspace_limit(trt: ModuleType, workspace: int | None) -> Configure:
    """Return what limits the memory that a layer may use while it runs.

    :param workspace: [MiB]; None for all there is.
    :raises BuildError: When it is none.
    """
    if workspace is not None and workspace < 1:
        raise BuildError(f'--workspace is {workspace} MiB; name at least 1, or leave it out')

    def configure(config: Any) -> None:
        if workspace is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace << 20)

    return configure


def _parse(trt: ModuleType, builder: Any, path: Path, log: Any) -> Any:
    # TensorRT 11 ignores the flag, since all its networks are strongly typed; TensorRT 10 needs it
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(path)):
        fault = parser.get_error(0)
        node = f'node {fault.node_name()} ({fault.node_operator()}): ' if fault.node_name() else ''
        raise build_error(path.name, f'{node}{fault.desc()}')
    return network


def refuse_data_dependence(trt: ModuleType, network: Any, name: str) -> None:
    """Refuse what TensorRT builds but cannot capture into a CUDA graph (TensorRT-RTX: neither).

    :param trt: ``tensorrt`` or ``tensorrt_rtx``.
    :param network: The parsed ``INetworkDefinition``.
    :param name: The graph's name, for the error.
    :raises BuildError: Naming the layer.
    """
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type == trt.LayerType.NON_ZERO:
            raise build_error(name, f'layer {layer.name} (NonZero)')


def _add_profiles(
    builder: Any, config: Any, network: Any, buckets: tuple[int, ...], name: str
) -> None:
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    dynamic = {port.name: tuple(port.shape) for port in inputs if ANY in port.shape}
    bucketed = BUCKETED if buckets else ()
    for port, shape in dynamic.items():
        if port not in bucketed or shape[:1] + shape[2:] != tuple(s for s in shape if s != ANY):
            raise BuildError(
                f'{name}: {port} is {list(shape)}, but nothing may be dynamic except the second '
                'axis of tokens and positions of act; export the policy again'
            )
    for bucket in buckets:
        profile = builder.create_optimization_profile()
        for port, shape in dynamic.items():
            fixed = sized(shape, bucket)
            profile.set_shape(port, fixed, fixed, fixed)
        config.add_optimization_profile(profile)


def _first(log: Any, otherwise: str) -> str:
    """Return the first error that TensorRT logged: the others follow from it."""
    return next(iter(log.take()), otherwise)


def import_rtx() -> ModuleType:
    """Import ``tensorrt_rtx``, for GPUs in PCs; its builder runs without a GPU.

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
    """Return the error for what TensorRT said about a graph, with advice where there is some."""
    for pattern, advice in ADVICE:
        if re.search(pattern, said, re.IGNORECASE):
            return BuildError(f'{where}: {one_line(said)}; {advice}')
    return BuildError(f'{where}: {one_line(said)}')
