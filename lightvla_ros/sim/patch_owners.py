"""Finds what each visual token of a policy shows, from the simulator's segmentation.

A patch belongs to the thing, other than background, that covers most of it, if that covers a
quarter of it at least; but for the share, the rule is that of ``train/alignment.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lightvla_ros.contract import Camera, Manifest
from lightvla_ros.contract.libero import CAMERAS
from lightvla_ros.policy.preprocessor import fitted
from lightvla_ros.sim.libero_env import LiberoEnv
from lightvla_ros.sim.segmentation import BACKGROUND, GRIPPER, ROBOT, Segmentation

ROLES = ('object', 'target', 'gripper', 'robot', 'other', 'background')
ON_TASK = ('object', 'target', 'gripper')
COVERED = 0.25  # of a patch; training labels from less on, but a figure must not move with it
SIZE = 256  # px of the segmentation; what it is resized from makes no difference to patches


class PatchOwners:
    """Finds the roles of all patches in the present state of an environment.

    Make it after the environment's reset, and again after its goal has changed.
    """

    def __init__(self, env: LiberoEnv, manifest: Manifest) -> None:
        self._segmentation = Segmentation(env.simulation)
        self._roles = roles_of(self._segmentation.names, env.goal)
        self._manifest = manifest

    def look(self) -> np.ndarray:
        """Return the index in ``ROLES`` of each patch in the policy's view.

        :returns: uint8 [cameras, patches], patches row by row as visual tokens are.
        """
        manifest = self._manifest
        owners = []
        for camera in manifest.cameras:
            shown = self._segmentation.render(CAMERAS[camera.name], SIZE)
            view = in_policy_view(shown, camera, manifest.preprocessing.crop_area)
            owners.append(owners_of_patches(view, manifest.tokens.patch_size))
        return self._roles[np.array(owners)]


@dataclass(frozen=True)
class Shares:
    """Patches by role, counted over frames. Add them up with ``+`` or :func:`sum_of`.

    :param kept: int64 [roles], in the order of ``ROLES``: patches that the pruner kept.
    :param patches: int64 [roles]: all patches.
    :param frames: How many frames were counted.
    """

    kept: np.ndarray
    patches: np.ndarray
    frames: int

    @classmethod
    def of_frame(cls, roles: np.ndarray, kept: np.ndarray) -> Shares:
        """Count one frame.

        :param roles: uint8 [patches].
        :param kept: bool [patches].
        """
        count = len(ROLES)
        return cls(
            np.bincount(roles[kept], minlength=count), np.bincount(roles, minlength=count), 1
        )

    def __add__(self, other: Shares) -> Shares:
        return Shares(
            self.kept + other.kept, self.patches + other.patches, self.frames + other.frames
        )

    @property
    def kept_share(self) -> dict[str, float]:
        """Share of the kept patches by role; zeros where none was kept."""
        return _shares(self.kept)

    @property
    def patches_share(self) -> dict[str, float]:
        """Share of all patches by role."""
        return _shares(self.patches)

    @property
    def kept_on_task(self) -> float:
        """Share of the kept patches on the object, the target or the gripper."""
        return sum(self.kept_share[role] for role in ON_TASK)

    @property
    def patches_on_task(self) -> float:
        """Share of all patches on the object, the target or the gripper."""
        return sum(self.patches_share[role] for role in ON_TASK)


def sum_of(shares: Sequence[Shares]) -> Shares:
    """Add up counts; the sum of none is zeros."""
    zeros = np.zeros(len(ROLES), np.int64)
    return sum(shares, start=Shares(zeros, zeros, 0))


def roles_of(names: Sequence[str], goal: Sequence[Sequence[str]]) -> np.ndarray:
    """Find the role of each thing in a scene: uint8 [names] of indices in ``ROLES``.

    :param names: As :attr:`Segmentation.names` has them.
    :param goal: Predicates such as ['in', 'milk_1', 'basket_1_contain_region']; a region counts as
        the thing whose name it begins with.
    """
    objects = {predicate[1] for predicate in goal}
    places = {place for predicate in goal for place in predicate[2:]}
    known = {BACKGROUND: 'background', ROBOT: 'robot', GRIPPER: 'gripper'}
    roles = []
    for name in names:
        role = known.get(name, 'other')
        if name in objects:
            role = 'object'
        elif any(place == name or place.startswith(f'{name}_') for place in places):
            role = 'target'
        roles.append(ROLES.index(role))
    return np.array(roles, np.uint8)


def in_policy_view(shown: np.ndarray, camera: Camera, crop_area: float) -> np.ndarray:
    """Turn an upright image of indices into the policy's view, as ``Preprocessor`` does.

    The nearest index is taken where pixels are mixed there.

    :param shown: uint8 [H, W].
    :returns: uint8 [height, width] of the camera's size in the manifest.
    """
    shown = fitted(shown, camera)
    if camera.rotate_degrees == 180:
        shown = shown[::-1, ::-1]
    if camera.mirror:
        shown = shown[:, ::-1]
    rows, columns = (
        _nearest(source, target, crop_area)
        for source, target in zip(shown.shape, camera.size, strict=True)
    )
    return shown[rows[:, None], columns]


def owners_of_patches(view: np.ndarray, patch_size: int) -> np.ndarray:
    """Find the thing that covers each patch; 0, the background, if nothing covers a quarter of it.

    :param view: uint8 [height, width] of indices.
    :returns: uint8 [patches], row by row.
    """
    height, width = view.shape
    rows, columns = height // patch_size, width // patch_size
    patches = view.reshape(rows, patch_size, columns, patch_size).swapaxes(1, 2)
    patches = patches.reshape(rows * columns, patch_size**2)
    pixels = np.stack(
        [(patches == index).sum(axis=1) for index in range(1, int(view.max()) + 2)], 1
    )
    covered = pixels.max(axis=1) >= COVERED * patch_size**2
    return np.where(covered, pixels.argmax(axis=1) + 1, 0).astype(np.uint8)


def _nearest(source: int, target: int, crop_area: float) -> np.ndarray:
    """Find the source pixel of each pixel of the view, along one side: resized, then cropped."""
    side = np.sqrt(crop_area)
    resized = ((1 - side) / 2 + side * np.linspace(0, 1, target)) * (target - 1)
    found = np.rint((resized + 0.5) * source / target - 0.5)
    return np.clip(found, 0, source - 1).astype(int)


def _shares(counts: np.ndarray) -> dict[str, float]:
    total = max(int(counts.sum()), 1)
    return {role: int(count) / total for role, count in zip(ROLES, counts, strict=True)}
