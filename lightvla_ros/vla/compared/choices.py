"""One function per method: which patches it keeps. Each follows the cited rule.

A choice gets what a method may look at (:class:`Seen`) and k, and returns the kept patches, int64
[k], ascending. All are written for a batch of one, and run on the meta device, where their FLOPs
are counted.

Where a causal language model takes the last token, which alone sees all others, this bidirectional
decoder has no such token: the row is named in each case.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lightvla_ros.vla import training_free
from lightvla_ros.vla.compared.memory import Memory
from lightvla_ros.vla.compared.sequence import attention_map
from lightvla_ros.vla.language import LlamaBlock, Rotation
from lightvla_ros.vla.training_free import best

if TYPE_CHECKING:
    from lightvla_ros.vla.compared.pictures import Pictures
    from lightvla_ros.vla.model import Context, LightVLA

WINDOW = 3  # chunks whose action attention VLA-Pruner averages
DECAY = 0.8  # weight of an older chunk against the next newer one in VLA-Pruner


@dataclass(frozen=True)
class Seen:
    """What a method may look at. N counts patches and context; the patches come first.

    :param patches: [Lv, D], the patches at the decoder's input.
    :param context: The rest of the decoder's input.
    :param block: The last layer that saw all patches; the first one if none has run.
    :param states: [1, N, D], the input of ``block``.
    :param output: [1, N, D], its output; ``states`` if it has not run.
    :param rotation: Of all N positions.
    :param key_bias: [1, 1, 1, N].
    :param pictures: What the towers saw; None if they did not run.
    """

    model: LightVLA
    patches: Tensor
    context: Context
    block: LlamaBlock
    states: Tensor
    output: Tensor
    rotation: Rotation
    key_bias: Tensor | None
    memory: Memory
    pictures: Pictures | None = None

    @property
    def words(self) -> tuple[Tensor, Tensor]:
        """The prompt's words at the decoder's input [P, D], and which are real, bool [P]."""
        where = self.model.words
        return self.context.tokens[0, where], self.context.mask[0, where]

    @property
    def rule_input(self) -> tuple[Tensor, Tensor, Tensor, LlamaBlock, int]:
        """What a rule of ``training_free.py`` reads."""
        return self.patches, *self.words, self.block, self.model.config.cameras

    def attention(self) -> Tensor:
        """Return the attention of ``block``, averaged over heads: float32 [N, N]."""
        return attention_map(self.block, self.states, self.rotation, self.key_bias)

    @property
    def slots(self) -> slice:
        """Positions of the action slots among the N tokens."""
        return slice(-self.model.config.action_slots - 1, -1)


Choice = Callable[[Seen, int], Tensor]


def fastv_stop(seen: Seen, k: int) -> Tensor:
    """FastV (2403.06764): the patches with most attention from the last token, which is stop."""
    return best(seen.attention()[-1, : len(seen.patches)], k)


def fastv_slots(seen: Seen, k: int) -> Tensor:
    """FastV with the mean of the action slots for the last token, as these give the actions."""
    return best(seen.attention()[seen.slots, : len(seen.patches)].mean(0), k)


def sparsevlm(seen: Seen, k: int) -> Tensor:
    """SparseVLM's raters (2410.04417) at one layer, without recycling, as VLA-Pruner compares it.

    Patches are ranked by the mean attention from the raters. ``recycling.py`` has the whole method.
    """
    weights = raters(seen.patches, *seen.words)
    count = len(seen.patches)
    where = slice(count + seen.model.words.start, seen.model.words.stop)
    attention = seen.attention()[where, :count]
    return best(weights @ attention, k)


def raters(patches: Tensor, words: Tensor, real: Tensor) -> Tensor:
    """Return the weight of each word in SparseVLM's ranking: float32 [P], in sum 1.

    A word is a rater if its mean share of the patches' softmax over words is at least the mean of
    all words; all raters weigh the same.

    :param patches: [Lv, D].
    :param words: [P, D].
    :param real: bool [P], False for padding.
    """
    logits = (patches.float() @ words.float().T).masked_fill(~real, -torch.inf)
    share = logits.softmax(1).mean(0)
    mean = share.sum() / real.sum()
    found = (real & (share >= mean)).float()
    return found / found.sum()


def flashvla(seen: Seen, k: int) -> Tensor:
    """FlashVLA's pruning half (2505.21200): information contribution to the attention's output.

    With the patches' rows A = U S V^T, patch i scores sum_j |U_ij| s_j.
    """
    x = seen.block.input_layernorm(seen.states)
    output = seen.block.self_attn(x, seen.rotation, seen.key_bias)[0, : len(seen.patches)]
    left, singular, _ = torch.linalg.svd(output.float(), full_matrices=False)
    return best(left.abs() @ singular, k)


def adp(seen: Seen, k: int) -> Tensor:
    """See :func:`lightvla_ros.vla.training_free.adp`."""
    return training_free.adp(*seen.rule_input, k)


def dart(seen: Seen, k: int) -> Tensor:
    """See :func:`lightvla_ros.vla.training_free.dart`."""
    return training_free.dart(*seen.rule_input, k)


def vla_pruner(seen: Seen, k: int) -> Tensor:
    """VLA-Pruner (2511.16449): by semantics and by past actions, then by diversity.

    FastV's k patches are united with the k patches of the highest action attention, averaged over
    the last chunks with the newest weighted least, as its code does. From the union patches are
    taken one by one, each the one whose highest cosine to the taken ones is the lowest, beginning
    with FastV's best. The first chunks of an episode are not pruned, as there is no average yet.
    """
    count, history = len(seen.patches), seen.memory.attention
    attention = seen.attention()[:, :count]
    semantic, actions = attention[-1], attention[seen.slots].mean(0)
    guide = [DECAY ** (WINDOW - 1 - age) * past for age, past in enumerate(reversed(history))]
    history[:] = [*history, actions][-WINDOW:]
    if len(guide) < WINDOW:
        return torch.arange(count, device=semantic.device)
    union = torch.zeros_like(semantic, dtype=torch.bool)
    for scores in (semantic, sum(guide)):
        union = union.index_fill(0, scores.topk(k).indices, True)
    states = F.normalize(seen.output[0, :count].float(), dim=1)
    cosine = states @ states.T
    taken = semantic.topk(1).indices
    nearest = cosine[taken][0]
    for _ in range(k - 1):
        left = union.index_fill(0, taken, False)
        following = (-nearest).masked_fill(~left, -torch.inf).argmax()[None]
        taken, nearest = torch.cat([taken, following]), torch.maximum(nearest, cosine[following][0])
    return taken.sort().values


def topk(seen: Seen, k: int) -> Tensor:
    """LightVLA's scores with a fixed number: the patches with the highest mean over queries."""
    scores = seen.model.token_scores(seen.patches[None], seen.context)
    return best(scores[0].mean(0), k)


def random(seen: Seen, k: int) -> Tensor:
    """Draw patches for each chunk, seeded by the episode and the chunk's number."""
    return _drawn(seen, k, [*seen.memory.seed, seen.memory.chunk])


def fixed(seen: Seen, k: int) -> Tensor:
    """Take the first patches of one fixed order."""
    return _drawn(seen, k, [seen.memory.seed[0]])


def _drawn(seen: Seen, k: int, seed: list[int]) -> Tensor:
    order = np.random.default_rng(seed).permutation(len(seen.patches))
    return torch.from_numpy(np.sort(order[:k])).to(seen.patches.device)
