"""Random changes of colour as OpenVLA's training makes them, on whole batches.

In order: brightness, contrast about each channel's mean, saturation and hue in HSV; every image
with numbers of its own (obs_transforms.py and dlimp's augmentations on ``tf.image``).
"""

from __future__ import annotations

import torch
from torch import Tensor

BRIGHTNESS = 0.2  # added, at most, of a range of 1
CONTRAST = SATURATION = (0.8, 1.2)
HUE = 0.05  # of a full turn, at most


def change_colours(images: Tensor) -> Tensor:
    """Change each image [N, 3, H, W] of values 0 to 1 at random -> the same form, in 0 to 1."""
    count = len(images)
    added = _uniform(count, -BRIGHTNESS, BRIGHTNESS)
    factor = _uniform(count, *CONTRAST)
    mean = images.mean((2, 3), keepdim=True) + added
    # brightness and contrast are one line: (x + added - mean) factor + mean
    images = torch.addcmul((added - mean) * factor + mean, images, factor).clamp_(0, 1)
    return shift_hue(saturate(images, _uniform(count, *SATURATION)), _uniform(count, -HUE, HUE))


def saturate(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply HSV's saturation, which is limited to 1.

    The brightest channel V stays, each other one moves along its distance from V; the darkest
    reaches 0 where the saturation is 1.

    :param images: [N, 3, H, W] in 0 to 1.
    :param factor: [N, 1, 1, 1].
    """
    low, high = images.aminmax(dim=1, keepdim=True)
    factor = torch.minimum(factor, high / (high - low).clamp_min(1e-6))
    return high - (high - images) * factor


def shift_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turn HSV's hue by a part of a full turn, [N, 1, 1, 1]; saturation and value stay.

    :param images: [N, 3, H, W] in 0 to 1.
    """
    red, green, blue = images.split(1, dim=1)
    low, high = images.aminmax(dim=1, keepdim=True)
    chroma = high - low
    safe = chroma.clamp_min(1e-6)
    # in sixths of a turn, from the channel that is brightest
    hue = torch.where(
        high == red,
        (green - blue) / safe,
        torch.where(high == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    hue = hue + 6 * turn
    # each channel's distance from V, in chroma, is a trapezoid of the hue
    places = torch.tensor([5.0, 3.0, 1.0]).view(1, 3, 1, 1)
    place = (places + hue).remainder_(6)
    return high - chroma * torch.minimum(place, 4 - place).clamp_(0, 1)


def _uniform(count: int, low: float, high: float) -> Tensor:
    return torch.rand(count, 1, 1, 1) * (high - low) + low
