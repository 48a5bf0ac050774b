"""SparseVLM's whole method (2410.04417): several layers prune, and recycle what they prune.

Its code (Gumpest/SparseVLMs) prunes behind the layers 3, 7 and 16 of 32. At each, the patches with
the highest mean attention from the raters (``choices.raters``) stay. Of the others the most
attended 30 % are clustered by density peaks into a tenth of their number, and the mean of each
cluster becomes a token behind the patches, which later layers may prune like a patch.

Differences: a recycled token has the position id of its cluster's centre, where its code renumbers
all tokens and so moves every patch; and ties of density go to the most attended token instead of
being broken by noise.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightvla_ros.vla.compared.choices import raters
from lightvla_ros.vla.compared.memory import Memory
from lightvla_ros.vla.compared.pictures import Pictures
from lightvla_ros.vla.compared.sequence import attention_map, whole_sequence
from lightvla_ros.vla.layers import padding_bias

if TYPE_CHECKING:
    from lightvla_ros.vla.model import Context, LightVLA

LAYERS = 3, 7, 16  # of 32
SHARE = 0.3  # of the pruned tokens, which are recycled
MEMBERS = 10  # recycled tokens of a cluster, about


def budgets(patches: int, k: int, layers: int) -> dict[int, int]:
    """Return how many visual tokens stay behind which number of layers.

    Every stage keeps the same share, so that k stay behind the last one. Its code has tables of
    three numbers for an image of 576 patches, such as 300, 200 and 110.
    """
    stages = sorted({max(1, round(layers * n / 32)) for n in LAYERS})
    stages = [stage for stage in stages if stage < layers]
    share = k / patches
    return {
        stage: round(patches * share ** ((index + 1) / len(stages)))
        for index, stage in enumerate(stages)
    }


def clusters_of(dropped: int) -> tuple[int, int]:
    """Return how many of the pruned tokens are recycled, and into how many tokens."""
    if not dropped:
        return 0, 0
    members = int(dropped * SHARE) + 1
    return members, members // MEMBERS + 1


def visual_tokens(patches: int, k: int, layers: int) -> list[int]:
    """Return the number of visual tokens, recycled ones with them, in each layer."""
    stays, counts = budgets(patches, k, layers), [patches]
    for layer in range(1, layers):
        kept = min(stays.get(layer, counts[-1]), counts[-1])
        counts.append(kept + clusters_of(counts[-1] - kept)[1])
    return counts


def cluster(tokens: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Cluster tokens [m, D], the most attended first, by density peaks.

    :returns: The means of the clusters float32 [count, D], and the centres' places int64 [count].
    """
    tokens = tokens.float()
    distance = (tokens[:, None] - tokens[None]).norm(dim=-1) / math.sqrt(tokens.shape[1])
    nearest = distance.topk(count, largest=False).values  # the token itself is one of them
    density = (-nearest.square().mean(1)).exp()
    denser = density[None] > density[:, None]
    apart = torch.where(denser, distance, distance.max()).amin(1)
    centres = (apart * density).argsort(descending=True, stable=True)[:count]
    numbers = torch.arange(count, device=tokens.device)
    belongs = distance[:, centres].argmin(1).index_copy(0, centres, numbers)
    members = (belongs[:, None] == numbers).float()
    return members.T @ tokens / members.sum(0)[:, None], centres


def decode(
    model: LightVLA,
    patches: Tensor,
    context: Context,
    pictures: Pictures | None,
    k: int,
    memory: Memory,
) -> tuple[Tensor, Tensor]:
    """Run the decoder; see :data:`lightvla_ros.vla.compared.pruned_model.Decode`."""
    llama = model.language_model.model
    x, positions, mask = whole_sequence(patches, context)
    picks = torch.arange(patches.shape[1], device=patches.device)
    words = model.words
    weights = raters(patches[0], context.tokens[0, words], context.mask[0, words])
    stays = budgets(len(picks), k, len(llama.layers))
    for index, block in enumerate(llama.layers, start=1):
        rotation, key_bias = llama.rotation(positions, x.dtype), padding_bias(mask, x.dtype)
        before, x = x, block(x, rotation, key_bias)
        count = len(picks)
        kept = stays.get(index, count)
        if kept >= count:
            continue
        attention = attention_map(block, before, rotation, key_bias)
        scores = weights @ attention[count + words.start : words.stop, :count]
        order = scores.argsort(descending=True)
        stay, members = order[:kept].sort().values, order[kept:]
        members = members[: clusters_of(len(members))[0]]
        recycled, centres = cluster(x[0, members], clusters_of(count - kept)[1])
        rest = torch.arange(count, x.shape[1], device=x.device)
        left = torch.cat([stay, members[centres], rest])
        x, positions, mask = x[:, left], positions[:, left], mask[:, left]
        places = kept + torch.arange(len(centres), device=x.device)
        x = x.index_copy(1, places, recycled[None].to(x.dtype))
        picks = torch.cat([picks[stay], torch.full_like(centres, -1)])
    return model.act(x), picks
