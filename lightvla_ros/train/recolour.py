"""Other colours of things, and other light, painted into recorded pictures by their segmentation.

``sim/looks.py`` colours things in the simulator, before a picture is rendered. Here nothing is
rendered, so that every step can show a frame in other colours.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lightvla_ros.train.object_words import BACKGROUND, ROBOT, ObjectClasses
from lightvla_ros.train.views import shift_hue

COLOURED = 0.5  # share of a frame's things that get another colour
FADED = 0.5  # of those, the share that fade into a colour; the others are multiplied by one
MULTIPLIED = (0.4, 1.6)  # brightness of a colour that multiplies
REMAINING = (0.2, 1.0)  # share of its own picture that a thing keeps when it fades
TURNED = 0.5  # share of the coloured things whose hues are turned before that
LIGHT = (0.6, 1.4)  # factor on the whole picture, in half of the changed frames
INSTANCES = 256  # values of a segmentation


def things(classes: ObjectClasses) -> Tensor:
    """Return which instances of a segmentation can be recoloured: bool [256].

    All but the background and the robot, which look the same in every scene.
    """
    fixed = [index for index, word in enumerate(classes.words) if word in (BACKGROUND, ROBOT)]
    found = ~np.isin(classes.of_instance, fixed)
    found[len(classes.instances) :] = False
    return torch.from_numpy(found)


def recolour(
    images: np.ndarray, instances: np.ndarray, allowed: Tensor, share: float
) -> np.ndarray:
    """Give some things of some frames another colour, with PyTorch's random numbers.

    A thing has one colour in all cameras. Multiplying by a colour leaves black black, and fading
    into one leaves less of the print, so half of the things get the one and half the other. Neither
    makes a yellow print of a red one, as turning the hues does.

    :param images: uint8 [B, cameras, H, W, 3].
    :param instances: uint8 [B, cameras, H, W], the instance that each pixel shows.
    :param allowed: bool [256], see :func:`things`.
    :param share: Share of the frames that are changed.
    :returns: uint8, of the images' shape. What is brighter than white is white.
    """
    batch = len(images)
    changed = torch.rand(batch, 1) < share
    coloured = changed & allowed & (torch.rand(batch, INSTANCES) < COLOURED)
    faded = coloured & (torch.rand(batch, INSTANCES) < FADED)
    colour = _colours(batch * INSTANCES).view(batch, INSTANCES, 3)
    remaining = _uniform((batch, INSTANCES, 1), *REMAINING)
    multiplied = colour * _uniform((batch, INSTANCES, 1), *MULTIPLIED)
    factor = torch.where(faded[..., None], remaining.expand_as(colour), multiplied)
    factor = torch.where(coloured[..., None], factor, torch.ones(()))
    added = 255 * (1 - remaining) * colour * torch.rand(batch, INSTANCES, 1)
    added = torch.where(faded[..., None], added, torch.zeros(()))
    light = torch.where(
        changed & (torch.rand(batch, 1) < 0.5), _uniform((batch, 1), *LIGHT), torch.ones(())
    )
    shown = torch.from_numpy(instances).flatten(1).long()  # [B, pixels of all cameras]
    frame = torch.arange(batch)[:, None]
    turned = coloured & (torch.rand(batch, INSTANCES) < TURNED)
    turn = torch.where(turned, torch.rand(batch, INSTANCES), torch.zeros(()))[frame, shown]
    pixels = torch.from_numpy(images).flatten(1, 3).float()
    pixels[turn > 0] = _turn_hue(pixels[turn > 0], turn[turn > 0])
    pixels = pixels * factor[frame, shown] + added[frame, shown]
    pixels = (pixels * light[..., None]).clamp_(0, 255)
    return pixels.to(torch.uint8).view(images.shape).numpy()


def _colours(count: int) -> Tensor:
    """Draw colours of any hue and saturation whose brightest channel is 1 -> [count, 3]."""
    pale = torch.rand(count, 1, 1, 1)
    red = torch.cat([torch.ones_like(pale), pale, pale], dim=1)
    return shift_hue(red, torch.rand_like(pale)).flatten(1)


def _turn_hue(pixels: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of each of [N, 3] pixels in 0 to 255 by its own part of a full turn [N]."""
    return 255 * shift_hue(pixels[..., None, None] / 255, turn[:, None, None, None])[..., 0, 0]


def _uniform(shape: tuple[int, ...], low: float, high: float) -> Tensor:
    return torch.rand(shape) * (high - low) + low
