"""What a policy sees at one instant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lightvla_ros.contract import PROPRIO_SIZES, Manifest
from lightvla_ros.policy.actions import quaternion_from_axis_angle
from lightvla_ros.policy.state import RobotState

EXAMPLE_WIDTH = 256  # px


@dataclass(frozen=True, eq=False)
class Observation:
    """What the policy sees at one instant.

    :param images: Upright RGB uint8 [H, W, 3] of any size, by the manifest's camera names.
    :param instruction: The task in words.
    :param state: The robot's state, or a recording's state vector float64 [S] in the manifest's
        layout, not normalised (metres, radians). None for a policy without proprio.
    """

    images: Mapping[str, np.ndarray]
    instruction: str
    state: RobotState | np.ndarray | None = None

    @classmethod
    def example(cls, manifest: Manifest, instruction: str = 'pick up the milk') -> Observation:
        """Make an observation of random noise that fits a policy, to try it without a robot.

        :returns: Pictures with the aspect ratio that the policy was trained on, and a state in the
            middle of its range.
        """
        random = np.random.default_rng(0)
        images = {
            camera.name: random.integers(
                0, 256, (round(EXAMPLE_WIDTH / camera.aspect), EXAMPLE_WIDTH, 3), np.uint8
            )
            for camera in manifest.cameras
        }
        spec = manifest.proprio
        if spec is None:
            return cls(images, instruction)
        middle = (np.array(spec.q01) + np.array(spec.q99)) / 2
        ends = np.cumsum([PROPRIO_SIZES[part] for part in spec.layout])
        parts = dict(zip(spec.layout, np.split(middle, ends[:-1]), strict=True))
        turn = parts.get('ee_axis_angle')
        state = RobotState(
            parts.get('ee_position'),
            None if turn is None else quaternion_from_axis_angle(turn[None])[0],
            parts.get('gripper_qpos'),
        )
        return cls(images, instruction, state)


def observations(manifest: Manifest, arrays: Mapping[str, np.ndarray]) -> list[Observation]:
    """Return the observations in the arrays of a file such as ``golden.npz``.

    :param arrays: For N observations ``images`` uint8 [N, cameras, H, W, 3], in the manifest's
        order, ``proprio`` float64 [N, S] (absent without proprio) and ``instruction`` str [N].
        Golden observations also have ``kept`` bool [N, Lv] and ``actions`` float32
        [N, chunk_length, 7], normalised.
    """
    names = [camera.name for camera in manifest.cameras]
    count = len(arrays['instruction'])
    return [
        Observation(dict(zip(names, images, strict=True)), str(instruction), proprio)
        for images, instruction, proprio in zip(
            arrays['images'],
            arrays['instruction'],
            arrays.get('proprio', [None] * count),
            strict=True,
        )
    ]
