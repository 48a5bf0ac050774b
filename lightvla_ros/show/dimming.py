"""Pruned patches dimmed, kept ones at full brightness, as in figure 3 of the paper."""

from __future__ import annotations

import numpy as np

from lightvla_ros.contract import Camera

GREY = np.array([0.299, 0.587, 0.114])  # of red, green and blue, ITU-R BT.601


def upright(kept: np.ndarray, camera: Camera, grid: tuple[int, int]) -> np.ndarray:
    """Turn a mask of the policy's view back to the camera's upright view.

    :param kept: bool [patches].
    :param grid: Rows and columns of patches.
    :returns: bool [rows, columns]; it covers the centre crop.
    """
    mask = kept.reshape(grid)
    if camera.mirror:
        mask = mask[:, ::-1]
    if camera.rotate_degrees == 180:
        mask = mask[::-1, ::-1]
    return mask


def dim(image: np.ndarray, kept: np.ndarray, crop_area: float) -> np.ndarray:
    """Dim all but the kept patches.

    :param image: Upright RGB uint8 [H, W, 3].
    :param kept: bool [rows, columns], see :func:`upright`.
    :param crop_area: Part of the image, at its centre, that the patches cover; no patch shows the
        margin, so it is dimmed.
    :returns: uint8 [H, W, 3].
    """
    rows, columns = (
        _patch_of_pixels(pixels, patches, crop_area)
        for pixels, patches in zip(image.shape[:2], kept.shape, strict=True)
    )
    padded = np.pad(kept, 1)  # -1 and the number of patches: the margin
    bright = padded[rows[:, None] + 1, columns + 1]
    grey = (image @ GREY)[..., None]
    dimmed = 0.2 * image + 0.2 * grey
    return np.where(bright[..., None], image, dimmed).astype(np.uint8)


def _patch_of_pixels(pixels: int, patches: int, crop_area: float) -> np.ndarray:
    """Return the patch under each pixel along one side; -1 or ``patches`` in the margin."""
    place = (np.arange(pixels) + 0.5) / pixels
    side = np.sqrt(crop_area)
    found = np.floor((place - (1 - side) / 2) / side * patches)
    return np.clip(found, -1, patches).astype(int)
