"""Other colours of things, and other light: a policy that saw one look alone knows no other."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable

import cv2
import mujoco
import numpy as np

from lightvla_ros.sim.segmentation import geoms_under

VISUAL = 1  # robosuite's group of geometries that are drawn
COLOURED = 0.5  # share of the things that get another colour
REPAINTED = 0.5  # of those, the share whose print is repainted; a colour multiplies the others
REMAINING = (0.2, 1.0)  # share of its picture that a repainted print keeps; the rest is a colour
BRIGHTNESS = (0.6, 1.4)  # of all light, as a factor


def draw_looks(model: mujoco.MjModel, bodies: Iterable[int], rng: np.random.Generator) -> list[int]:
    """Colour some things, and change the light.

    Print and shape can still be seen: a colour multiplies what a thing's texture shows, which
    leaves black black; or the texture's hues are turned, and it fades into a colour.

    :param model: Changed in place; :func:`restore_looks` takes the changes back.
    :param bodies: Of the things; all that hangs on them is coloured with them.
    :returns: The textures that changed, for the renderer to load.
    """
    changed: set[int] = set()
    for body in bodies:
        if rng.random() >= COLOURED:
            continue
        hue, saturation, value = rng.random(), rng.uniform(0.2, 1.0), rng.uniform(0.4, 1.6)
        colour = np.array(colorsys.hsv_to_rgb(hue, saturation, 1.0))
        geoms = geoms_under(model, body)
        geoms = geoms[model.geom_group[geoms] == VISUAL]
        materials = np.unique(model.geom_matid[geoms])
        materials = materials[materials >= 0]
        plain = geoms[model.geom_matid[geoms] < 0]
        if rng.random() < REPAINTED:
            printed = model.mat_texid[materials, mujoco.mjtTextureRole.mjTEXROLE_RGB]
            turn, remaining = rng.random(), rng.uniform(*REMAINING)
            for texture in {int(each) for each in printed if each >= 0} - changed:
                pixels = _pixels(model, texture)
                pixels[:] = repaint(pixels, turn, min(value, 1.0) * colour, remaining)
                changed.add(texture)
            materials = materials[printed < 0]
        for table, rows in ((model.geom_rgba, plain), (model.mat_rgba, materials)):
            table[rows, :3] = np.clip(table[rows, :3] * value * colour, 0, 1)
    factor = rng.uniform(*BRIGHTNESS)
    model.light_diffuse[:] *= factor
    model.vis.headlight.diffuse[:] *= factor
    model.vis.headlight.ambient[:] *= factor
    return sorted(changed)


def repaint(pixels: np.ndarray, turn: float, colour: np.ndarray, remaining: float) -> np.ndarray:
    """Turn the hues of a picture, and fade it into a colour.

    :param pixels: uint8 [N, 3], RGB.
    :param turn: Part of a full turn of the hue; 0 and 1 change nothing.
    :param colour: RGB from 0 to 1.
    :param remaining: Share of the picture in the result; the rest is the colour.
    """
    hsv = cv2.cvtColor(pixels[None], cv2.COLOR_RGB2HSV_FULL)  # a full turn is 256
    hsv[..., 0] += np.uint8(round(256 * turn) % 256)
    turned = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)
    # a table for each channel, because a texture can have 16 million pixels
    picture = np.arange(256)[:, None] * remaining
    table = np.round(picture + 255 * (1 - remaining) * colour).astype(np.uint8)
    return cv2.LUT(turned, table[None])[0]


def restore_looks(model: mujoco.MjModel, original: mujoco.MjModel) -> list[int]:
    """Take all changes of :func:`draw_looks` back.

    :returns: The textures that changed, for the renderer to load.
    """
    for name in ('geom_rgba', 'mat_rgba', 'light_diffuse'):
        getattr(model, name)[:] = getattr(original, name)
    for name in ('diffuse', 'ambient'):
        getattr(model.vis.headlight, name)[:] = getattr(original.vis.headlight, name)
    changed = []
    for texture in range(model.ntex):
        now, then = _pixels(model, texture), _pixels(original, texture)
        if not np.array_equal(now, then):
            now[:] = then
            changed.append(texture)
    return changed


def _pixels(model: mujoco.MjModel, texture: int) -> np.ndarray:
    """Return a texture's own numbers, uint8 [N, channels]."""
    channels = int(model.tex_nchannel[texture])
    first = int(model.tex_adr[texture])
    count = int(model.tex_height[texture] * model.tex_width[texture]) * channels
    return model.tex_data[first : first + count].reshape(-1, channels)
