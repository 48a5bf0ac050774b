"""The inputs and outputs that a policy's two graphs must have.

T is the number type that a graph's metadata gives as ``precision`` (``fp32``, ``fp16`` or
``bf16``); all shapes except ``bucket`` are static::

    encode  pixels float32 [cameras, 3 * towers, height, width], words float32 [1, W, D],
            word_mask bool [1, W], proprio float32 [1, S] (absent without proprio)
         -> tokens T [1, Lv, D]       kept visual tokens first, in their original order
            positions int64 [1, Lv]   index of each token's patch, 0 .. Lv - 1
            kept int32 [cameras]      kept tokens per camera; the sum is K
            context T [1, C, D]       BOS, proprio, words, action slots, stop
    act     tokens T [1, bucket, D], positions int64 [1, bucket], kept int32 [cameras],
            context T [1, C, D], word_mask bool [1, W]
         -> actions float32 [chunk_length, 7], normalised

``words`` is the embedded prompt without BOS, see ``embedding.py``.
"""

from __future__ import annotations

from lightvla_ros.contract import ACTION_SIZE, Manifest
from lightvla_ros.errors import EngineError

ANY = -1  # size of an axis whose length is the bucket
FLOAT_OF = {'fp32': 'float32', 'fp16': 'float16', 'bf16': 'bfloat16'}

Ports = dict[str, tuple[str, tuple[int, ...]]]  # name -> number type and shape


def policy_ports(manifest: Manifest, precision: str, width: int) -> tuple[Ports, Ports]:
    """Return the inputs and outputs that a policy's ``encode`` and ``act`` must have.

    :param precision: ``fp32``, ``fp16`` or ``bf16``.
    :param width: Number of channels of a token, D.
    """
    cameras, tokens = len(manifest.cameras), manifest.tokens.buckets[-1]
    channels = 3 * len(manifest.preprocessing.normalisation)
    words = manifest.prompt.length - 1  # without BOS
    slots = manifest.action.chunk_length * ACTION_SIZE
    has_proprio = manifest.proprio is not None
    context = 1 + has_proprio + words + slots + 1  # between BOS and stop
    number = FLOAT_OF[precision]
    passed_on: Ports = {
        'kept': ('int32', (cameras,)),
        'context': (number, (1, context, width)),
        'word_mask': ('bool', (1, words)),
    }
    encode: Ports = {
        'pixels': ('float32', (cameras, channels, *manifest.cameras[0].size)),
        'words': ('float32', (1, words, width)),
        'tokens': (number, (1, tokens, width)),
        'positions': ('int64', (1, tokens)),
        **passed_on,
    }
    if has_proprio:
        encode['proprio'] = ('float32', (1, manifest.proprio.size))
    act: Ports = {
        'tokens': (number, (1, ANY, width)),
        'positions': ('int64', (1, ANY)),
        'actions': ('float32', (manifest.action.chunk_length, ACTION_SIZE)),
        **passed_on,
    }
    return encode, act


def check_ports(graph: str, found: Ports, wanted: Ports) -> None:
    """Refuse an engine whose inputs or outputs are not the policy's.

    :param graph: Name of the graph, for the error message.
    :raises EngineError: Naming the first input or output that differs.
    """
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise EngineError(
                f'{graph}: {name} is {_words(found.get(name))}, but by the manifest it must be '
                f'{_words(wanted.get(name))}; export the policy again'
            )


def _words(port: tuple[str, tuple[int, ...]] | None) -> str:
    return 'absent' if port is None else f'{port[0]} {list(port[1])}'
