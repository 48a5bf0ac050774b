"""Losses that make patches similar to the words for the objects they show.

The paper starts from an encoder whose patches are local and aligned with language (SigLIP's
pretraining). In a small model from scratch they are neither, and then all queries of the pruner are
the same. The simulator's segmentation replaces pretraining: each patch is classified among the
objects' words by the product with which the pruner's eq. 1 attends, rms(patch) . rms(words) /
sqrt(D). A second loss teaches patches where in the image their object is centred. Pretrained towers
keep this information, but a small one loses it (position ids affect the decoder's attention, never
its values), and a grasp needs it with an accuracy of a centimetre.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightvla_ros.train.object_words import IGNORED
from lightvla_ros.vla.pruner import in_fp32, rms

COVERED = 0.1  # least share of a patch that its object covers; small distant objects cover no more
HALF_IMAGE = 4.0  # position of the image's border; tokens have an rms of about 1 in these units
NO_LABEL = -100  # label of a patch that mostly shows objects without words


def patch_labels(classes: Tensor, patch_size: int, count: int) -> Tensor:
    """Find what each patch shows: the largest object that covers a tenth of it, else background.

    :param classes: uint8 [B, cameras, H, W]: 0 is background, 255 is an object without words.
    :param count: Number of classes.
    :returns: int64 [B, Lv], the cameras one after the other; ``NO_LABEL`` for a patch of which
        objects without words cover a tenth and more than any other object.
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


def patch_places(instances: Tensor, patch_size: int) -> tuple[Tensor, Tensor]:
    """Find the image position of the object instance that each patch shows.

    :param instances: uint8 [B, cameras, H, W]: 0 is background, 255 unknown.
    :returns: float32 [B, Lv, 2]: right and down from the image's centre to the centroid of the
        instance's visible pixels, ``HALF_IMAGE`` at the border; and bool [B, Lv], whether an
        instance covers at least a tenth of the patch (as in :func:`patch_labels`).
    """
    batch, cameras, height, width = instances.shape
    rows, columns = height // patch_size, width // patch_size
    shown = instances.flatten(0, 1).long()
    image = torch.arange(len(shown), device=shown.device).view(-1, 1, 1)
    flat = (256 * image + shown).flatten()
    down, right = torch.meshgrid(
        *(torch.arange(n, dtype=torch.float32, device=shown.device) for n in (height, width)),
        indexing='ij',
    )
    count = 256 * len(shown)
    pixels = torch.bincount(flat, minlength=count).clamp_min(1)
    centroid = torch.stack(
        [
            torch.bincount(flat, axis.expand_as(shown).flatten(), count) / pixels
            for axis in (right, down)
        ],
        -1,
    )
    patches = shown.view(-1, rows, patch_size, columns, patch_size)
    place = torch.arange(len(shown) * rows * columns, device=shown.device)
    flat = (256 * place.view(-1, rows, 1, columns, 1) + patches).flatten()
    most, instance = (
        torch.bincount(flat, minlength=256 * len(place)).view(-1, 256)[:, 1:IGNORED].max(-1)
    )
    half = torch.tensor([width / 2, height / 2], device=shown.device)
    of_patch = centroid[256 * (place // (rows * columns)) + instance + 1]
    places = HALF_IMAGE * ((of_patch + 0.5) / half - 1)
    found = most >= COVERED * patch_size**2
    return places.view(batch, -1, 2).float(), found.view(batch, -1)


class Aligner(nn.Module):
    """The alignment losses.

    They have no trained parameters: words are rows of the model's embeddings, and an object's
    position is read along fixed directions of the token, two for each camera.

    :param ids: Token ids of each class's words.
    :param frequency: How often patches show each class, [classes]; a class has the weight
        1 / sqrt(frequency).
    :param width: Width of a token, D.
    """

    def __init__(
        self, ids: Sequence[Sequence[int]], frequency: Tensor, width: int, cameras: int
    ) -> None:
        super().__init__()
        longest = max(map(len, ids))
        padded = torch.tensor([[*each, *[0] * (longest - len(each))] for each in ids])
        share = torch.tensor(
            [[1 / len(each)] * len(each) + [0.0] * (longest - len(each)) for each in ids]
        )
        weight = frequency.clamp_min(1e-4).rsqrt()
        weight = weight / (weight * frequency).sum()  # of 1 on average
        self.register_buffer('ids', padded, persistent=False)  # [classes, words]
        self.register_buffer('share', share, persistent=False)
        self.register_buffer('weight', weight, persistent=False)
        self.cameras = cameras
        random = torch.randn(width, 2 * cameras, generator=torch.Generator().manual_seed(0))
        self.register_buffer('directions', torch.linalg.qr(random).Q, persistent=False)

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
        """Return the balanced cross entropy, averaged over all patches, with and without label."""
        # not divided by the batch's weights, so that the mean over processes is that of the whole
        flat = labels.flatten()
        summed = F.cross_entropy(
            logits.flatten(0, 1), flat, self.weight, ignore_index=NO_LABEL, reduction='sum'
        )
        return summed / len(flat)

    def where(self, patches: Tensor, places: Tensor, found: Tensor, labels: Tensor) -> Tensor:
        """Return the mean position error of the tokens [B, Lv, D] for the objects they show.

        Along the other cameras' directions a token should give 0. Classes have the weights of
        :meth:`loss`, because the object to be grasped may be small while the gripper is large.
        """
        own = torch.eye(self.cameras, device=places.device)[:, None, :, None]
        wanted = places.unflatten(1, (self.cameras, -1))[..., None, :] * own  # [B, C, P, C, 2]
        with in_fp32(patches):
            error = patches.float() @ self.directions - wanted.flatten(1, 2).flatten(2)
            error = error.abs().sum(-1)
            weight = self.weight[labels.clamp_min(0)] * (found & (labels != NO_LABEL))
            return (error * weight).sum() / weight.sum().clamp_min(1e-6)
