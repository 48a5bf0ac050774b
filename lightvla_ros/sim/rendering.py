"""Rendering without a screen: which OpenGL is used, and what makes a frame cheaper."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from typing import TYPE_CHECKING, Any

import numpy as np

from lightvla_ros.errors import RenderingError

if TYPE_CHECKING:  # the command line reads this module without MuJoCo
    import mujoco

RENDER_SETTINGS = ('standard', 'cheap')
BACK_ENDS = ('egl', 'osmesa')
PACKAGES = 'libosmesa6 libegl1 libegl-mesa0 libgl1-mesa-dri libgles2'

# A failed import of OpenGL cannot be undone in its process, so each back end is tried in a child.
_PROBE = """
import mujoco
context = mujoco.GLContext(16, 16)
context.make_current()
from OpenGL import GL
print(GL.glGetString(GL.GL_RENDERER).decode())
context.free()
"""

CELL = 0.006  # m; less than a pixel of a 128 px image
FEWEST_FACES = 300  # smaller meshes stay as they are


def choose_renderer() -> str:
    """Pick the first OpenGL back end that works, set ``MUJOCO_GL`` to it and return its name.

    Call it before robosuite is imported, which loads OpenGL at once. ``MUJOCO_GL``, where set, is
    the only one tried.

    :returns: Such as ``egl (llvmpipe (LLVM 15.0.6, 256 bits))``.
    :raises RenderingError: When none works.
    """
    asked = os.environ.get('MUJOCO_GL', '').lower()
    found = os.environ.get('LIGHTVLA_RENDERER', '')
    if found and found.split(' ')[0] == asked:  # by an earlier call, or by a parent process
        return found
    failures = []
    for name in (asked,) if asked else BACK_ENDS:
        environment = {**os.environ, 'MUJOCO_GL': name, 'PYOPENGL_PLATFORM': name}
        probe = subprocess.run(
            [sys.executable, '-c', _PROBE], env=environment, capture_output=True, text=True
        )
        if probe.returncode == 0:
            os.environ['MUJOCO_GL'] = os.environ['PYOPENGL_PLATFORM'] = name
            os.environ['LIGHTVLA_RENDERER'] = f'{name} ({probe.stdout.strip()})'
            return os.environ['LIGHTVLA_RENDERER']
        failures.append(f'{name}: {(probe.stderr.strip().splitlines() or ["no output"])[-1]}')
    advice = f'install {PACKAGES}' + (', or unset MUJOCO_GL' if asked else '')
    raise RenderingError(f'cannot render without a screen ({"; ".join(failures)}); {advice}')


def make_cheap(xml: str) -> str:
    """Change a MuJoCo model so that software rendering is 2 to 3 times faster.

    No multisampling, no reflections, a smaller shadow map; ``rendering.py`` does the rest.
    Pictures differ by a few grey levels in the mean, so a policy should be trained and run with the
    same setting.
    """
    root = ElementTree.fromstring(xml)
    visual = root.find('visual')
    if visual is None:
        visual = ElementTree.SubElement(root, 'visual')
    quality = visual.find('quality')
    if quality is None:
        quality = ElementTree.SubElement(visual, 'quality')
    quality.set('offsamples', '0')
    quality.set('shadowsize', '512')
    for material in root.iter('material'):
        material.attrib.pop('reflectance', None)
    return ElementTree.tostring(root, encoding='unicode')


def decimate_visual_meshes(model: mujoco.MjModel, context: Any, cell: float = CELL) -> None:
    """Merge the vertices within each cell of a grid, and drop the faces that collapse.

    Faces are what software rendering spends its time on; a scene of LIBERO has 300,000.
    Only meshes that nothing can touch are changed, and only their faces: physics, and what reads
    vertices, stay as they are.

    :param context: MuJoCo's rendering context (``MjrContext``), which gets the new meshes.
    :param cell: Edge of a cell [m].
    """
    visual, touched = set(), set()
    import mujoco

    for geom in np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_MESH):
        inert = model.geom_contype[geom] == 0 and model.geom_conaffinity[geom] == 0
        (visual if inert else touched).add(int(model.geom_dataid[geom]))
    for mesh in sorted(visual - touched):
        if model.mesh_facenum[mesh] >= FEWEST_FACES and _decimate(model, mesh, cell):
            mujoco.mjr_uploadMesh(model, context, mesh)


def _decimate(model: mujoco.MjModel, mesh: int, cell: float) -> bool:
    """Shorten a mesh's list of faces in place; return whether it was worth it."""
    first, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
    merged = _nearest_to_the_middle(model.mesh_vert[first : first + count], cell)
    first, count = int(model.mesh_faceadr[mesh]), int(model.mesh_facenum[mesh])
    faces = merged[model.mesh_face[first : first + count]]
    a, b, c = faces.T
    whole = np.flatnonzero((a != b) & (b != c) & (a != c))
    _, once = np.unique(np.sort(faces[whole], axis=1), axis=0, return_index=True)
    chosen = whole[np.sort(once)]
    if not 20 <= len(chosen) <= 0.9 * count:
        return False
    model.mesh_face[first : first + len(chosen)] = faces[chosen]
    for per_face in (model.mesh_facenormal, model.mesh_facetexcoord):
        per_face[first : first + len(chosen)] = per_face[first : first + count][chosen]
    model.mesh_facenum[mesh] = len(chosen)
    return True


def _nearest_to_the_middle(vertices: np.ndarray, cell: float) -> np.ndarray:
    """For each vertex, the index of the one that stands for its cell: nearest to their mean."""
    corner = vertices.min(axis=0)
    _, group = np.unique(np.floor((vertices - corner) / cell), axis=0, return_inverse=True)
    group = group.ravel()
    size = np.bincount(group)
    mean = np.stack([np.bincount(group, axis) / size for axis in vertices.T], axis=1)
    distance = np.square(vertices - mean[group]).sum(axis=1)
    order = np.lexsort((distance, group))
    return order[np.searchsorted(group[order], np.arange(len(size)))][group]
