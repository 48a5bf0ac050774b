"""Patches are taught to look like the words for what they show.

The paper starts from an encoder whose patches are local and aligned with language (SigLIP's
pretraining). A small model from scratch has neither, and then all queries of the pruner are the
same. The simulator's segmentation stands in: each patch is classified among the objects' words by
the very product that the pruner's eq. 1 attends with, rms(patch) . rms(words) / sqrt(D).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightvla_ros.train.object_words import IGNORED
from lightvla_ros.vla.pruner import in_fp32, rms

COVERED = 0.25  # an object that covers this share of a patch is what the patch shows
NO_LABEL = -100  # of a patch that mostly shows objects without words


def patch_labels(classes: Tensor, patch_size: int, count: int) -> Tensor:
    """Find what each patch shows: the largest object that covers a quarter, else background.

    :param classes: uint8 [B, cameras, H, W]: 0 is background, 255 has no words.
    :param count: Number of classes.
    :returns: int64 [B, Lv], the cameras one after the other; ``NO_LABEL`` where what has no words
        covers more than any object and a quarter.
    """
    batch, cameras, height, width = classes.shape
    rows, columns = height // patch_size, width // patch_size
    values = classes.long()
    values[values == IGNORED] = count
    patches = torch.arange(batch * cameras * rows * columns, device=classes.device)
    place = patches.view(batch, cameras, rows, 1, columns, 1) * (count + 1)
    values = values.view(batch, cameras, rows, patch_size, columns, patch_size)
    pixels = torch.bincount((values + place).flatten(), minlength=len(patches) * (count + 1))
    pixels = pixels.view(batch, cameras * rows * columns, count + 1)
    most, label = pixels[..., 1:].max(-1)
    label = label + 1
    label[label == count] = NO_LABEL
    return torch.where(most >= COVERED * patch_size**2, label, 0)


class Aligner(nn.Module):
    """The classification loss. It has no parameters: words are rows of the model's embeddings.

    :param ids: Token ids of each class's words.
    :param frequency: How often patches show each class, [classes]; classes weigh in by one over
        its square root.
    """

    def __init__(self, ids: Sequence[Sequence[int]], frequency: Tensor) -> None:
        super().__init__()
        longest = max(map(len, ids))
        padded = torch.tensor([[*each, *[0] * (longest - len(each))] for each in ids])
        share = torch.tensor(
            [[1 / len(each)] * len(each) + [0.0] * (longest - len(each)) for each in ids]
        )  # noqa: E501
        weight = frequency.clamp_min(1e-4).rsqrt()
        weight = weight / (weight * frequency).sum()  # of 1 on average
        self.register_buffer('ids', padded, persistent=False)  # [classes, words]
        self.register_buffer('share', share, persistent=False)
        self.register_buffer('weight', weight, persistent=False)

    def logits(self, patches: Tensor, embeddings: Tensor) -> Tensor:
        """Compare patches [B, Lv, D] with the words in embeddings [vocabulary, D].

        :returns: float32 [B, Lv, classes].
        """
        with in_fp32(patches):
            words = F.embedding(self.ids, embeddings.float())  # [classes, words, D]
            classes = (words * self.share[..., None]).sum(1)
            scale = 1 / math.sqrt(patches.shape[-1])
            return rms(patches.float()) @ rms(classes).T * scale

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Balanced cross entropy, a scalar: the mean over all patches, also those without label."""
        # not over the weights of the batch: then processes' means would not add up to the whole's
        flat = labels.flatten()
        summed = F.cross_entropy(
            logits.flatten(0, 1), flat, self.weight, ignore_index=NO_LABEL, reduction='sum'
        )
        return summed / len(flat)
