"""What TensorRT says when it cannot build, in one line that says what to try."""

from __future__ import annotations

import re

from lightvla_ros.errors import BuildError, one_line

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


def build_error(where: str, said: str) -> BuildError:
    """Return the error for what TensorRT said about a graph, with advice where there is some."""
    for pattern, advice in ADVICE:
        if re.search(pattern, said, re.IGNORECASE):
            return BuildError(f'{where}: {one_line(said)}; {advice}')
    return BuildError(f'{where}: {one_line(said)}')
