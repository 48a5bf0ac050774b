"""Other colours of things, and other light: a policy that saw one look alone knows no other."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable

import mujoco
import numpy as np

from lightvla_ros.sim.segmentation import geoms_under

VISUAL = 1  # robosuite's group of geometries that are drawn
COLOURED = 0.5  # share of the things that get another colour
BRIGHTNESS = (0.6, 1.4)  # of all light, as a factor


def draw_looks(model: mujoco.MjModel, bodies: Iterable[int], rng: np.random.Generator) -> None:
    """Colour some things, and change the light.

    A colour multiplies what a thing's texture shows, so that print and shape can still be seen.

    :param model: Changed in place; :func:`restore_looks` takes the changes back.
    :param bodies: Of the things; all that hangs on them is coloured with them.
    """
    for body in bodies:
        if rng.random() >= COLOURED:
            continue
        hue, saturation, value = rng.random(), rng.uniform(0.2, 1.0), rng.uniform(0.4, 1.6)
        colour = value * np.array(colorsys.hsv_to_rgb(hue, saturation, 1.0))
        geoms = geoms_under(model, body)
        geoms = geoms[model.geom_group[geoms] == VISUAL]
        materials = np.unique(model.geom_matid[geoms])
        for table, rows in (
            (model.geom_rgba, geoms[model.geom_matid[geoms] < 0]),
            (model.mat_rgba, materials[materials >= 0]),
        ):
            table[rows, :3] = np.clip(table[rows, :3] * colour, 0, 1)
    factor = rng.uniform(*BRIGHTNESS)
    model.light_diffuse[:] *= factor
    model.vis.headlight.diffuse[:] *= factor
    model.vis.headlight.ambient[:] *= factor


def restore_looks(model: mujoco.MjModel, original: mujoco.MjModel) -> None:
    """Take all changes of :func:`draw_looks` back."""
    for name in ('geom_rgba', 'mat_rgba', 'light_diffuse'):
        getattr(model, name)[:] = getattr(original, name)
    for name in ('diffuse', 'ambient'):
        getattr(model.vis.headlight, name)[:] = getattr(original.vis.headlight, name)
