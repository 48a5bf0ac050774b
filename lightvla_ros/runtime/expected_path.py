"""The poses that an arm is expected to reach while it executes a chunk, for those who look on."""

from __future__ import annotations

from lightvla_ros.policy.actions import Chunk, axis_angle_from_quaternion
from lightvla_ros.policy.poses import Pose, moved
from lightvla_ros.runtime.rolled_state import REACHED


def expected_path(start: Pose, chunk: Chunk, execution: str) -> list[Pose]:
    """Return the pose at the start of a chunk and after each of its steps.

    Nothing is commanded from it: the arm's controller, the gripper and contacts are not known here.

    :param start: The measured pose.
    :param execution: ``spring`` or ``displacement``, as in the manifest.
    """
    reached = REACHED[execution]
    turns = axis_angle_from_quaternion(chunk.rotations)
    poses = [start]
    for translation, turn in zip(chunk.translations, turns, strict=True):
        poses.append(moved(poses[-1], reached * translation, reached * turn))
    return poses
