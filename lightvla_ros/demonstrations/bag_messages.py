"""What a bag's messages hold: their stamps and their numbers."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from lightvla_ros.errors import DemonstrationError

SET_BACK = 1_000_000_000  # ns, as in the inbox; what is older by less is a repetition
POSE = ('x', 'y', 'z', 'qx', 'qy', 'qz', 'qw')
TWIST = ('x', 'y', 'z', 'rx', 'ry', 'rz')


def accept(topic: str, stamp: int, stamps: list[int]) -> bool:
    """Append a stamp that is newer than all before; refuse a clock that was set back."""
    if stamp <= 0:
        raise DemonstrationError(f'{topic}: a message has no stamp (0)')
    if stamps and stamp < stamps[-1] - SET_BACK:
        back = (stamps[-1] - stamp) * 1e-9
        raise DemonstrationError(f'{topic}: time goes back by {back:.2f} s; cut the bag there')
    if stamps and stamp <= stamps[-1]:
        return False
    stamps.append(stamp)
    return True


def header_stamp(topic: str, data: bytes) -> int:
    """Read the stamp of a message that begins with a header, without decoding the rest."""
    if len(data) < 12:
        raise DemonstrationError(f'{topic}: a message of {len(data)} bytes is cut off')
    seconds, nanoseconds = struct.unpack_from('<iI' if data[1] & 1 else '>iI', data, 4)
    return seconds * 10**9 + nanoseconds


def stamp_of(time: Any) -> int:
    """Return a builtin_interfaces/Time or Duration in nanoseconds."""
    return time.sec * 10**9 + time.nanosec


def _pose(pose: Any) -> list[float]:
    place = getattr(pose, 'position', None) or pose.translation
    turn = getattr(pose, 'orientation', None) or pose.rotation
    return [place.x, place.y, place.z, turn.x, turn.y, turn.z, turn.w]


def _twist(twist: Any) -> list[float]:
    speed, turn = twist.linear, twist.angular
    return [speed.x, speed.y, speed.z, turn.x, turn.y, turn.z]


def by_name(topic: str, message: Any, labels: tuple[str, ...]) -> list[float]:
    """Return the joints of a message whose order is another than the first one's."""
    found = dict(zip(message.name, message.position, strict=False))
    if found.keys() != set(labels):
        raise DemonstrationError(f'{topic}: its messages have different joints; record one robot')
    return [found[label] for label in labels]


JOINTS = 'sensor_msgs/msg/JointState'
# How a message's numbers are read, their labels (None: the message's own), whether it has a header
READERS: dict[str, tuple[Callable[[Any], Any], tuple[str, ...] | None, bool]] = {
    'geometry_msgs/msg/PoseStamped': (lambda message: _pose(message.pose), POSE, True),
    'geometry_msgs/msg/TransformStamped': (lambda message: _pose(message.transform), POSE, True),
    'geometry_msgs/msg/TwistStamped': (lambda message: _twist(message.twist), TWIST, True),
    'geometry_msgs/msg/Twist': (_twist, TWIST, False),
    JOINTS: (lambda message: message.position, None, True),
    'std_msgs/msg/Bool': (lambda message: [float(message.data)], ('data',), False),
    'std_msgs/msg/Float32': (lambda message: [message.data], ('data',), False),
    'std_msgs/msg/Float64': (lambda message: [message.data], ('data',), False),
    'std_msgs/msg/Float32MultiArray': (lambda message: message.data, (), False),
    'std_msgs/msg/Float64MultiArray': (lambda message: message.data, (), False),
}
