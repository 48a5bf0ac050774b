"""Turns batches of stored frames into model inputs: cropped, changed in colour, normalised."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lightvla_ros.contract import Camera, Preprocessing
from lightvla_ros.policy.preprocessor import Preprocessor, fitted, has_aspect
from lightvla_ros.train.object_words import IGNORED

CROP_AREA = 0.9  # as OpenVLA-OFT trains and evaluates

BRIGHTNESS = 0.2  # largest change, in a range of 1
CONTRAST = SATURATION = (0.8, 1.2)
HUE = 0.05  # largest change, as a part of a full turn


@dataclass(frozen=True)
class Views:
    """A batch of images as the model takes them.

    :param pixels: float32 [B, cameras, 3 * towers, H, W].
    :param instances: uint8 [B, cameras, H, W], cropped as the images are, or None.
    """

    pixels: Tensor
    instances: Tensor | None


class Viewer:
    """Turns stored frames into views.

    In evaluation it does what ``Preprocessor`` does; the centre crop may differ by one grey
    value, because products are added in another order.

    :param cameras: The policy's cameras. If they turn or resize images, or the recipe has a JPEG
        round trip, each image first passes through ``Preprocessor``, which is slow for a small
        model.
    :param recipe: The policy's recipe; if its ``crop_area`` is below 1, training crops at random.
    :param colour: Whether training changes colours.
    """

    def __init__(self, cameras: tuple[Camera, ...], recipe: Preprocessing, colour: bool) -> None:
        self._cameras = cameras
        self._as_stored = recipe.jpeg_quality is None and not any(
            camera.rotate_degrees or camera.mirror for camera in cameras
        )
        self._robot = Preprocessor(cameras, replace(recipe, crop_area=1.0))
        self._side = math.sqrt(recipe.crop_area)
        self._colour = colour
        mean = torch.tensor([tower.mean for tower in recipe.normalisation], dtype=torch.float64)
        std = torch.tensor([tower.std for tower in recipe.normalisation], dtype=torch.float64)
        self._scale = (1 / (255 * std)).float()  # [towers, 3]
        self._offset = (-mean / std).float()

    def fits(self, size: tuple[int, int]) -> bool:
        """Return whether images of a size [px] are used as stored, which is fast."""
        return (
            self._as_stored
            and tuple(size) == self._cameras[0].size
            and all(has_aspect(*size, camera) for camera in self._cameras)
        )

    def training(self, images: np.ndarray, instances: np.ndarray | None = None) -> Views:
        """Crop at random and change colours, with separate random numbers for each image.

        :param images: uint8 [B, cameras, H, W, 3], upright RGB.
        :param instances: uint8 [B, cameras, H, W], the instance that each pixel shows.
        """
        places = None
        count = images.shape[0] * images.shape[1]
        if self._side < 1:
            places = (torch.rand(count, 2) * 2 - 1) * (1 - self._side)
        return self._views(images, instances, places, self._colour)

    def evaluation(self, images: np.ndarray, instances: np.ndarray | None = None) -> Views:
        """Crop the centre. The parameters are those of :meth:`training`."""
        places = None
        if self._side < 1:
            places = torch.zeros(images.shape[0] * images.shape[1], 2)
        return self._views(images, instances, places, False)

    def _views(
        self,
        images: np.ndarray,
        instances: np.ndarray | None,
        places: Tensor | None,
        colour: bool,
    ) -> Views:
        images, instances = self._of_policy(images, instances)
        batch, cameras, height, width = images.shape[:4]
        # a permuted view, so that the conversion to float also moves the channels to the front
        values = torch.from_numpy(images).flatten(0, 1).permute(0, 3, 1, 2)
        values = values.to(torch.float32, memory_format=torch.contiguous_format)
        shown = None
        if instances is not None:
            shown = torch.from_numpy(instances).flatten(0, 1)
        if places is not None:
            grid = self._grid(places, height, width)
            values = F.grid_sample(values, grid, 'bilinear', 'border', align_corners=True)
            if not colour:
                # as in the policy: TensorFlow's saturating conversion to uint8
                values = (values * (255.5 / 255)).floor_().clamp_(0, 255)
            if shown is not None:
                shown = F.grid_sample(
                    shown[:, None].float(), grid, 'nearest', 'border', align_corners=True
                )[:, 0].to(torch.uint8)
        if colour:
            values = change_colours(values.mul_(1 / 255)).mul_(255)
        towers = len(self._scale)
        pixels = values.new_empty(batch * cameras, 3 * towers, height, width)
        for tower in range(towers):
            scale = self._scale[tower].view(3, 1, 1)
            offset = self._offset[tower].view(3, 1, 1)
            torch.addcmul(offset, values, scale, out=pixels[:, 3 * tower : 3 * tower + 3])
        pixels = pixels.view(batch, cameras, 3 * towers, height, width)
        return Views(pixels, None if shown is None else shown.view(batch, cameras, height, width))

    def _of_policy(
        self, images: np.ndarray, instances: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Turn and resize images to the policy's, and the instances of their pixels with them."""
        if self.fits(images.shape[2:4]):
            return images, instances
        images = np.stack(
            [
                [self._robot.policy_view(*pair) for pair in zip(row, self._cameras, strict=True)]
                for row in images
            ]
        )
        if instances is not None:
            instances = np.stack(
                [_turned(instances[:, index], each) for index, each in enumerate(self._cameras)], 1
            )
        return images, instances

    def _grid(self, places: Tensor, height: int, width: int) -> Tensor:
        """Return the sampling grid [N, H, W, 2] of crops with their centres at ``places``.

        With aligned corners, coordinates span side - 1, as in ``tf.image.crop_and_resize``.
        """
        turn = torch.zeros(len(places), 2, 3)
        turn[:, 0, 0] = turn[:, 1, 1] = self._side
        turn[:, :, 2] = places
        return F.affine_grid(turn, [len(places), 1, height, width], align_corners=True)


def _turned(instances: np.ndarray, camera: Camera) -> np.ndarray:
    """Turn and resize instances [B, H, W] as ``Preprocessor.policy_view``, by nearest neighbour."""
    instances = np.moveaxis(fitted(np.moveaxis(instances, 0, 2), camera, fill=IGNORED), 2, 0)
    if camera.rotate_degrees == 180:
        instances = instances[:, ::-1, ::-1]
    if camera.mirror:
        instances = instances[:, :, ::-1]
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int)
        for new, old in zip(camera.size, instances.shape[1:], strict=True)
    )
    return instances[:, rows[:, None], columns]


def change_colours(images: Tensor) -> Tensor:
    """Change the colours of images [N, 3, H, W] with values 0 to 1 at random -> the same form.

    This follows OpenVLA's training (obs_transforms.py, and dlimp's augmentations on ``tf.image``),
    with separate random numbers for every image: brightness, contrast about each channel's mean,
    and then saturation and hue in HSV.
    """
    count = len(images)
    added = _uniform(count, -BRIGHTNESS, BRIGHTNESS)
    factor = _uniform(count, *CONTRAST)
    mean = images.mean((2, 3), keepdim=True) + added
    # brightness and contrast together: (x + added - mean) factor + mean
    images = torch.addcmul((added - mean) * factor + mean, images, factor).clamp_(0, 1)
    return shift_hue(saturate(images, _uniform(count, *SATURATION)), _uniform(count, -HUE, HUE))


def saturate(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply HSV's saturation, and limit it to 1.

    The brightest channel V stays; the distance of the other channels from V is scaled. At
    saturation 1 the darkest channel is 0.

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
    # in sixths of a turn, by which channel is the brightest
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
