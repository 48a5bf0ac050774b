"""Coarser visual meshes: what software rendering spends its time on (LIBERO has 300,000 faces)."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

CELL = 0.006  # m; less than a pixel of a 128 px image
FEWEST_FACES = 300  # smaller meshes stay as they are


def decimate_visual_meshes(model: mujoco.MjModel, context: Any, cell: float = CELL) -> None:
    """Merge the vertices within each cell of a grid, and drop the faces that collapse.

    Only meshes that nothing can touch are changed, and only their faces: physics, and what reads
    vertices, stay as they are.

    :param context: MuJoCo's rendering context (``MjrContext``), which gets the new meshes.
    :param cell: Edge of a cell [m].
    """
    visual, touched = set(), set()
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
