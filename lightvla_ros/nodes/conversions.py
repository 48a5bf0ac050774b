"""Conversions between messages and the package's own types. Times are integer nanoseconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import PoseStamped, Transform
from sensor_msgs.msg import CompressedImage, Image, JointState

from lightvla_ros.errors import LightVLAError, quoted
from lightvla_ros.msg import ActionChunk, InferenceStats
from lightvla_ros.policy.actions import Chunk
from lightvla_ros.policy.compressed_images import CompressedPicture
from lightvla_ros.policy.images import RawPicture
from lightvla_ros.policy.state import RobotState

UNIT_TOLERANCE = 1e-3
# Pairs of names: the FER's in franka_ros and franka_ros2 (also the LIBERO bridge's), and the FR3's
FINGER_JOINTS = (
    'panda_finger_joint1',
    'panda_finger_joint2',
    'fr3_finger_joint1',
    'fr3_finger_joint2',
)
FINGER_REACH = 0.04  # m; largest distance of a Panda's finger from the middle
FINGER_TOLERANCE = 0.005  # m; LIBERO's fingers report -0.0008 to 0.0419
MOST_NAMES = 12  # joint names of a message that are quoted
MAX_STEPS = 64  # the bound in ActionChunk.msg


class MessageError(LightVLAError, ValueError):
    """A message that must not be acted on; one line says why."""


class InputError(LightVLAError):
    """An input that must not be acted on; the text is one line.

    :param source: The camera or topic that it came from.
    :param code: One of ``reasons.REASONS``.
    """

    def __init__(self, source: str, code: str, text: str) -> None:
        super().__init__(text)
        self.source = source
        self.code = code


def nanoseconds(seconds: float) -> int:
    """Seconds -> integer nanoseconds."""
    return round(seconds * 1e9)


def time_message(time: int) -> Time:
    """Nanoseconds -> Time."""
    return Time(sec=time // 10**9, nanosec=time % 10**9)


def duration_message(duration: int) -> Duration:
    """Nanoseconds, of either sign -> Duration."""
    return Duration(sec=duration // 10**9, nanosec=duration % 10**9)


def stamp_ns(message: Time | Duration) -> int:
    """Time or Duration -> nanoseconds."""
    return message.sec * 10**9 + message.nanosec


@dataclass(frozen=True)
class ChunkHeader:
    """The fields of an ActionChunk other than its steps; ``ActionChunk.msg`` describes them.

    :param stamp: When step 0 starts [ns, ROS time].
    :param valid_until: Latest time to start the chunk [ns, ROS time].
    """

    stamp: int
    valid_until: int
    sequence: int
    session_id: str
    reference: int
    frame_id: str = ''
    child_frame_id: str = ''
    instruction: str = ''
    clamped: bool = False
    reason: str = ''
    stats: InferenceStats = field(default_factory=InferenceStats)


def chunk_to_message(chunk: Chunk, header: ChunkHeader) -> ActionChunk:
    """Fill an ActionChunk."""
    message = ActionChunk(
        schema_version=ActionChunk.SCHEMA_VERSION,
        reference=header.reference,
        child_frame_id=header.child_frame_id,
        period=duration_message(nanoseconds(chunk.period)),
        valid_until=time_message(header.valid_until),
        sequence=header.sequence,
        session_id=header.session_id,
        instruction=header.instruction,
        first_step=chunk.first_step,
        clamped=header.clamped,
        reason=header.reason,
        stats=header.stats,
    )
    message.header.stamp = time_message(header.stamp)
    message.header.frame_id = header.frame_id
    message.steps = [
        _transform(*step)
        for step in zip(chunk.translations.tolist(), chunk.rotations.tolist(), strict=True)
    ]
    message.gripper = chunk.gripper.tolist()
    return message


def _transform(translation: list[float], rotation: list[float]) -> Transform:
    # The parts that it makes itself are filled: given to it, they would be made twice.
    message = Transform()
    part = message.translation
    part.x, part.y, part.z = translation
    part = message.rotation
    part.x, part.y, part.z, part.w = rotation
    return message


def chunk_from_message(message: ActionChunk) -> Chunk:
    """Convert an ActionChunk; check everything that Jazzy's generated setters do not check.

    :raises MessageError: When the chunk must not be executed.
    """
    if message.schema_version != ActionChunk.SCHEMA_VERSION:
        raise MessageError(
            f'schema version {message.schema_version}, not {ActionChunk.SCHEMA_VERSION}'
        )
    period = stamp_ns(message.period)
    if period <= 0:
        raise MessageError(f'period of {period} ns; it must be above 0')
    steps = []
    for transform in message.steps:
        p, q = transform.translation, transform.rotation
        steps.append((p.x, p.y, p.z, q.x, q.y, q.z, q.w))
    numbers = np.array(steps, dtype=np.float64).reshape(-1, 7)
    gripper = np.array(message.gripper, dtype=np.float64)
    if len(numbers) > MAX_STEPS:
        raise MessageError(f'{len(numbers)} steps; at most {MAX_STEPS} are allowed')
    if len(gripper) != len(numbers):
        raise MessageError(f'{len(numbers)} steps but {len(gripper)} gripper openings')
    if not (np.isfinite(numbers).all() and np.isfinite(gripper).all()):
        raise MessageError('a step is NaN or infinite')
    if ((gripper < 0) | (gripper > 1)).any():
        raise MessageError('a gripper opening is outside 0 to 1')
    norms = np.sqrt((numbers[:, 3:] ** 2).sum(1))
    if (np.abs(norms - 1) > UNIT_TOLERANCE).any():
        raise MessageError('a rotation is not a unit quaternion')
    return Chunk(
        translations=numbers[:, :3],
        rotations=numbers[:, 3:] / norms[:, None],
        gripper=gripper,
        period=period * 1e-9,
        first_step=message.first_step,
    )


def image_to_message(image: np.ndarray, stamp: int, frame_id: str, encoding: str = 'rgb8') -> Image:
    """Contiguous uint8 [H, W, 3] (rgb8) or [H, W] (mono8) -> Image."""
    message = Image(
        height=image.shape[0],
        width=image.shape[1],
        encoding=encoding,
        step=image.strides[0],
    )
    message.header.stamp = time_message(stamp)
    message.header.frame_id = frame_id
    message.data = image.tobytes()  # bytes take 0.1 ms; a list or an ndarray takes 8 to 25
    return message


def picture_from_message(
    message: Image | CompressedImage, encoding_8uc3: str = 'refuse'
) -> RawPicture | CompressedPicture:
    """Take the picture out of a message without decoding it; cheap enough for a callback.

    :param encoding_8uc3: Meaning of the encoding 8UC3: ``rgb8``, ``bgr8`` or ``refuse``.
    :raises ImageError: When the header of an uncompressed image does not fit its data.
    """
    if isinstance(message, CompressedImage):
        return CompressedPicture(message.data, message.format)
    encoding = message.encoding
    if encoding == '8UC3' and encoding_8uc3 != 'refuse':
        encoding = encoding_8uc3
    return RawPicture(message.data, message.height, message.width, encoding, message.step)


def pose_to_message(state: RobotState, stamp: int, frame_id: str) -> PoseStamped:
    """Position and quaternion of a state -> PoseStamped."""
    message = PoseStamped()
    message.header.frame_id = frame_id
    fill_pose(message, state.position, state.quaternion, stamp)
    return message


def fill_pose(
    message: PoseStamped, position: np.ndarray, quaternion: np.ndarray, stamp: int
) -> None:
    """Write position [3], quaternion x y z w [4] and stamp [ns] into a message."""
    part = message.header.stamp
    part.sec, part.nanosec = divmod(stamp, 10**9)
    part = message.pose.position
    part.x, part.y, part.z = position.tolist()
    part = message.pose.orientation
    part.x, part.y, part.z, part.w = quaternion.tolist()


def pose_from_message(message: PoseStamped) -> RobotState:
    """PoseStamped -> position and quaternion.

    :raises MessageError: When a number is not finite or the quaternion is not a unit quaternion.
    """
    p, q = message.pose.position, message.pose.orientation
    position = np.array([p.x, p.y, p.z])
    quaternion = np.array([q.x, q.y, q.z, q.w])
    if not np.isfinite(position).all():
        raise MessageError('the position is NaN or infinite')
    if not abs(np.linalg.norm(quaternion) - 1) <= UNIT_TOLERANCE:
        raise MessageError(f'the orientation {quaternion.tolist()} is not a unit quaternion')
    return RobotState(position, quaternion)


def gripper_to_message(state: RobotState, stamp: int) -> JointState:
    """Fingers of a state -> JointState of a Panda hand, both positive.

    The real hand's driver reports each finger's distance from the middle; robosuite's second
    finger has the opposite sign.
    """
    message = JointState(
        name=list(FINGER_JOINTS[:2]),
        position=[float(state.fingers[0]), -float(state.fingers[1])],
    )
    message.header.stamp = time_message(stamp)
    return message


def gripper_from_message(
    message: JointState,
    finger_joints: Sequence[str] = FINGER_JOINTS,
    reach: float = FINGER_REACH,
) -> RobotState:
    """JointState -> fingers, found by name.

    The message may hold other joints, in any order.

    :param finger_joints: Pairs of names; the message must hold exactly one of the pairs, once.
    :param reach: Largest distance of a finger from the middle [m].
    :raises MessageError: When it does not, or when a finger's position is impossible.
    """
    if len(message.name) != len(message.position):
        raise MessageError(
            f'{len(message.name)} joint names for {len(message.position)} positions; each position '
            'needs a name'
        )
    counts = Counter(message.name)
    pairs = list(zip(finger_joints[::2], finger_joints[1::2], strict=True))
    there = [pair for pair in pairs if counts[pair[0]] and counts[pair[1]]]
    if len(there) != 1 or any(counts[name] > 1 for name in there[0]):
        came = quoted(', '.join(message.name[:MOST_NAMES]))
        raise MessageError(
            f'it must name one pair of finger_joints, once, not {came}; finger_joints is '
            f'{", ".join(finger_joints)}'
        )
    found = [message.position[list(message.name).index(name)] for name in there[0]]
    for name, position in zip(there[0], found, strict=True):
        if not -FINGER_TOLERANCE <= position <= reach + FINGER_TOLERANCE:  # or NaN
            raise MessageError(
                f'{name} is {position:g} m; a finger is 0 to {reach:g} m from the middle'
                f'{_finger_lead(position, reach + FINGER_TOLERANCE)}'
            )
    return RobotState(fingers=np.array([found[0], -found[1]]))


def _finger_lead(position: float, reach: float) -> str:
    """Return a guess at the cause of an impossible finger position; empty when it is unclear."""
    if 1 <= position <= 1e3 * reach:
        return ' (millimetres?)'
    if -reach <= position < 0:
        return ' (both fingers must be positive, as a real hand reports them)'
    if reach < position <= 2 * reach:
        return ' (the width between the fingers? each finger has half of it)'
    return ''
