"""From the robot's state messages to the parts of a policy's state vector."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import JointState

from lightvla_ros.nodes.conversions import (
    InputError,
    MessageError,
    gripper_from_message,
    pose_from_message,
)


class StateReader:
    """Reads state messages, and refuses those that a policy must not act on.

    :param values: The node's parameters; those that can change are read anew for every message.
    """

    def __init__(self, values: SimpleNamespace) -> None:
        self._values = values

    def read(self, message: PoseStamped | JointState) -> dict[str, np.ndarray]:
        """Read a state message into the arguments of :func:`state_vector`.

        Safe from any thread.

        :raises InputError: When it holds no state to act on.
        """
        pose = isinstance(message, PoseStamped)
        source = 'ee_pose' if pose else 'gripper_state'
        try:
            if pose:
                position, quaternion = pose_from_message(message)
                return {'position': position, 'quaternion': quaternion}
            return {'gripper_qpos': gripper_from_message(message, self._values.finger_joints)}
        except MessageError as error:
            raise InputError(source, 'bad_state', str(error)) from None
