"""Turns the robot's state messages into parts of a state that a policy may act on."""

from __future__ import annotations

from types import SimpleNamespace

from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import JointState

from lightvla_ros.contract import Proprio
from lightvla_ros.nodes.conversions import (
    InputError,
    MessageError,
    gripper_from_message,
    pose_from_message,
)
from lightvla_ros.policy.state import RobotState, out_of_bounds


class StateReader:
    """Reads state messages, and refuses those that a policy must not act on.

    :param proprio: The state that the policy takes; None when it takes none.
    :param values: The node's parameters; changeable ones are read anew for every message.
    """

    def __init__(self, proprio: Proprio | None, values: SimpleNamespace) -> None:
        self._proprio = proprio
        self._values = values

    def read(self, message: PoseStamped | JointState) -> RobotState:
        """Read the part of the state that a message holds.

        Safe from any thread.

        :raises InputError: When it holds no valid state, or one far outside the training data.
        """
        source = 'ee_pose' if isinstance(message, PoseStamped) else 'gripper_state'
        try:
            state = self._state(message)
        except MessageError as error:
            raise InputError(source, 'bad_state', str(error)) from None
        bound = self._values.max_state_excess
        for outside in out_of_bounds(self._proprio, state)[:1]:
            if outside.excess > bound:
                text = f'{outside}, max_state_excess {bound:g}'
                raise InputError(source, 'state_out_of_range', text)
        return state

    def _state(self, message: PoseStamped | JointState) -> RobotState:
        if isinstance(message, PoseStamped):
            return pose_from_message(message)
        return gripper_from_message(message, self._values.finger_joints, self._values.finger_reach)
