"""Pruned patches dimmed, kept ones at full brightness, as in figure 3 of the paper."""

from __future__ import annotations

import numpy as np

LUMA = np.array([0.299, 0.587, 0.114])  # of red, green and blue, ITU-R BT.601


def dim(
    image: np.ndarray,
    kept: np.ndarray,
    crop_area: float,
    colour: float = 0.2,
    grey: float = 0.2,
) -> np.ndarray:
    """Dim all but the kept patches.

    :param image: Upright RGB uint8 [H, W, 3].
    :param kept: bool [rows, columns], upright, too (``policy.preprocessor.upright_mask``).
    :param crop_area: Part of the image, at its centre, that the patches cover; no patch shows the
        margin, so it is dimmed.
    :param colour: Part of the image that is left where it is dimmed; ``grey`` of its grey values.
    :returns: uint8 [H, W, 3].
    """
    rows, columns = (
        np.searchsorted(patch_edges(pixels, patches, crop_area), np.arange(pixels), 'right')
        for pixels, patches in zip(image.shape[:2], kept.shape, strict=True)
    )
    padded = np.pad(kept, 1)  # around the patches: the margin
    bright = padded[rows[:, None], columns]
    dimmed = (colour * image + grey * (image @ LUMA)[..., None]).astype(np.uint8)
    return np.where(bright[..., None], image, dimmed)


def patch_edges(pixels: int, patches: int, crop_area: float) -> np.ndarray:
    """Return the first pixel of each patch along a side, and the one behind the last: int [N + 1].

    A pixel belongs to the patch in which its centre lies.
    """
    side = pixels * np.sqrt(crop_area)
    edges = (pixels - side) / 2 + side / patches * np.arange(patches + 1)
    return np.ceil(edges - 0.5).astype(int)
